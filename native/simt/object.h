// Which loaded file holds this kernel, and which __shared__ variables of that file may it have?
//
// Read from the file's symbol table, by the tag that __shared__ leaves in a name (keywords.h): the file must not be
// stripped. A kernel in an anonymous namespace has no variable that lies in the anonymous namespace of another source
// file: locals follow the name of theirs there. Blocks of a library with hundreds of kernels are quick thereby.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <fcntl.h>
#include <link.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace simt {

// An executable or a shared library; its addresses in memory are those in its file plus base.
struct LoadedObject {
  uintptr_t base = 0;
  char path[512] = "";
};

inline LoadedObject object_of(uintptr_t address) {
  struct Search {
    uintptr_t address;
    LoadedObject found;
  } search{address, {}};
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *data) {
        auto &wanted = *static_cast<Search *>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto &segment = info->dlpi_phdr[i];
          const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
          if (segment.p_type != PT_LOAD || wanted.address < begin || wanted.address >= begin + segment.p_memsz)
            continue;
          wanted.found.base = info->dlpi_addr;
          snprintf(wanted.found.path, sizeof wanted.found.path, "%s", info->dlpi_name ? info->dlpi_name : "");
          return 1;
        }
        return 0;
      },
      &search);
  if (!*search.found.path) {  // the executable has no name there
    const ssize_t length = readlink("/proc/self/exe", search.found.path, sizeof search.found.path - 1);
    search.found.path[length > 0 ? length : 0] = 0;
  }
  return search.found;
}

struct SharedVariable {
  char *address;
  size_t bytes;
  std::string name;  // as the source has it
  bool is_own;       // the kernel names it itself; others may be those of functions that it calls
};

// "_ZZN12_GLOBAL__N_14kernEPfE4tileB9gt_shared" to "tile"
inline std::string variable_name(const char *symbol) {
  char *demangled = abi::__cxa_demangle(symbol, nullptr, nullptr, nullptr);
  std::string name = demangled ? demangled : symbol;
  free(demangled);
  name = name.substr(0, name.rfind("[abi:"));
  const size_t colons = name.rfind("::");
  return colons == std::string::npos ? name : name.substr(colons + 2);
}

// Whether a function "_Z1f" has a local "_ZZ1fE1x".
inline bool is_local_of(const char *function, const char *variable) {
  if (strncmp(function, "_Z", 2) || strncmp(variable, "_ZZ", 3)) return false;
  const size_t length = strlen(function + 2);
  return !strncmp(variable + 3, function + 2, length) && variable[3 + length] == 'E';
}

// The whole file, read only.
class MappedFile {
 public:
  explicit MappedFile(const char *path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file >= 0 && fstat(file, &status) == 0 && status.st_size > 0) {
      void *p = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
      if (p != MAP_FAILED) {
        bytes_ = static_cast<const char *>(p);
        size_ = static_cast<size_t>(status.st_size);
      }
    }
    if (file >= 0) close(file);
  }
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;
  ~MappedFile() {
    if (bytes_) munmap(const_cast<char *>(bytes_), size_);
  }
  size_t size() const { return size_; }
  // `count` objects at `offset`, or null if the file does not hold them.
  template <class T> const T *at(size_t offset, size_t count = 1) const {
    return offset <= size_ && count <= (size_ - offset) / sizeof(T) ? reinterpret_cast<const T *>(bytes_ + offset)
                                                                    : nullptr;
  }

 private:
  const char *bytes_ = nullptr;
  size_t size_ = 0;
};

inline std::vector<SharedVariable> shared_variables_of(const LoadedObject &object, uintptr_t kernel) {
  const MappedFile file(object.path);
  const auto *header = file.at<ElfW(Ehdr)>(0);
  const auto *sections = header && !memcmp(header->e_ident, ELFMAG, SELFMAG)
                             ? file.at<ElfW(Shdr)>(header->e_shoff, header->e_shnum) : nullptr;
  for (unsigned s = 0; sections && s < header->e_shnum; ++s) {
    const auto &table = sections[s];
    if (table.sh_type != SHT_SYMTAB || table.sh_link >= header->e_shnum) continue;
    const auto &strings = sections[table.sh_link];
    const size_t count = table.sh_size / sizeof(ElfW(Sym));
    const auto *symbols = file.at<ElfW(Sym)>(table.sh_offset, count);
    const char *names = file.at<char>(strings.sh_offset, strings.sh_size);
    if (!symbols || !names) break;
    // f(symbol, name, source file) for those of a type; 0: of any file.
    const auto for_each = [&](unsigned char type, auto f) {
      size_t source = 0;
      for (size_t i = 0; i < count; ++i) {
        const auto &symbol = symbols[i];
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FILE) source = i;
        if (ELF64_ST_TYPE(symbol.st_info) != type || symbol.st_shndx == SHN_UNDEF || symbol.st_name >= strings.sh_size)
          continue;
        const char *name = names + symbol.st_name;
        f(symbol, name, strstr(name, "_GLOBAL__N_") ? source : 0);
      }
    };
    size_t source_of_kernel = 0;
    const char *kernel_name = "";
    for_each(STT_FUNC, [&](const auto &symbol, const char *name, size_t source) {
      if (object.base + symbol.st_value != kernel) return;
      source_of_kernel = source;
      kernel_name = name;
    });
    std::vector<SharedVariable> found;
    for_each(STT_OBJECT, [&](const auto &symbol, const char *name, size_t source) {
      if (!strstr(name, "B9gt_shared") || (source && source_of_kernel && source != source_of_kernel)) return;
      found.push_back({reinterpret_cast<char *>(object.base + symbol.st_value), symbol.st_size, variable_name(name),
                       is_local_of(kernel_name, name)});
    });
    return found;
  }
  throw std::runtime_error(std::string("no symbol table in ") + object.path +
                           ": it is needed to find static shared memory; do not strip a GT_SIMT build");
}

}  // namespace simt
