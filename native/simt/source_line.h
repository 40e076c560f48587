// Which source line does a program counter belong to?
//
// Asks addr2line, so it needs binutils and a build with -g; without them the answer is object+offset, which addr2line
// takes by hand. Only for reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

#include "simt/object.h"

namespace simt {

// Writes "file:line" or "object+0xoffset" to `text`; returns its length.
inline int source_line(const void *return_address, char *text, size_t size) {
  // one back: the instruction before the return address is the one meant
  const uintptr_t address = reinterpret_cast<uintptr_t>(return_address) - 1;
  const LoadedObject object = object_of(address);
  char offset[32];
  snprintf(offset, sizeof offset, "0x%zx", static_cast<size_t>(address - object.base));
  size_t used = 0;
  int ends[2];
  if (pipe(ends) == 0) {
    const pid_t child = fork();
    if (child == 0) {
      dup2(ends[1], STDOUT_FILENO);
      close(ends[0]);
      close(ends[1]);
      execlp("addr2line", "addr2line", "-e", object.path, offset, static_cast<char *>(nullptr));
      _exit(127);
    }
    close(ends[1]);
    for (ssize_t n; child > 0 && used + 1 < size && (n = read(ends[0], text + used, size - 1 - used)) > 0;) used += n;
    close(ends[0]);
    if (child > 0) waitpid(child, nullptr, 0);
  }
  text[used] = 0;
  text[used = strcspn(text, " \n")] = 0;  // one line, without "(discriminator 3)"
  if (used > 0 && text[0] != '?') return static_cast<int>(used);
  const int length = snprintf(text, size, "%s+%s", object.path, offset);
  return length < static_cast<int>(size) ? length : static_cast<int>(size) - 1;
}

}  // namespace simt
