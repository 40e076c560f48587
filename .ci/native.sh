#!/usr/bin/env bash
# Is the native code sound on a machine without a GPU? Configures the soft flavour with its tests in BUILD_DIR, builds, runs
# them all, and checks what no test can: symbols of the built objects, and what nvcc makes of the kernels.
#   .ci/native.sh BUILD_DIR
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: .ci/native.sh BUILD_DIR" >&2; exit 2; }
mkdir -p "$1"
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
jobs=${GATUN_JOBS:-$(nproc)}

step() { echo "native.sh: $*"; }
die() { echo "native.sh: FAILED: $*" >&2; exit 1; }
# Runs a command into a log and shows its end if it fails.
logged() { # name command...
  local log=$build/$1.log
  shift
  "$@" >"$log" 2>&1 || { tail -n 60 "$log" >&2; die "$*"; }
}
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)

step "configure the soft flavour with tests in $build"
logged configure cmake -S "$root/native" -B "$build" "${generator[@]}" -DGATUN_FLAVOUR=soft -DGATUN_TESTS=ON
step "build, public headers as strict C11 among it ($jobs jobs)"
logged build cmake --build "$build" --parallel "$jobs"

step "ctest"
ctest --test-dir "$build" --output-on-failure --no-tests=error || die "ctest"

# A function that two instruction sets both emit as weak is kept once, and may be the one this CPU cannot run.
step "no weak functions in the objects of an instruction set"
for isa in avx2 avx512 generic; do
  objects=$build/CMakeFiles/gatun_$isa.dir
  [ -d "$objects" ] || continue
  found=$(find "$objects" -name '*.o' -exec nm -A --defined-only {} + | grep -E ' [Ww] ' | c++filt || true)
  [ -z "$found" ] || die "weak functions in gatun_$isa:"$'\n'"$found"
done

step "the soft library has its symbol table"
nm "$build/libgatun.so" >"$build/symbols.txt" 2>&1
grep -q gt_shared "$build/symbols.txt" || die "no __shared__ variable in the symbol table of libgatun.so: was it stripped?"

if command -v nvcc >/dev/null; then
  for kernel in "$root"/kernels/*.cu; do
    name=$(basename "$kernel")
    step "nvcc for sm_90a, no spills: $name"
    logged "$name" nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -I "$root/native" -I "$root/native/include" \
      -I "$root/native/src" -Xptxas=-v -Xcompiler=-Wall,-Wextra,-fPIC -Werror=all-warnings -c "$kernel" -o "$build/$name.o"
    kernels=$(grep -c 'bytes spill stores' "$build/$name.log") || die "$name: ptxas said nothing of spills, see $build/$name.log"
    if spills=$(grep -B1 -E '[1-9][0-9]* bytes spill' "$build/$name.log"); then
      die "$name spills:"$'\n'"$(c++filt <<<"$spills")"
    fi
    echo "  $kernels kernels, at most $(grep -oE 'Used [0-9]+' "$build/$name.log" | cut -d' ' -f2 | sort -n | tail -n 1) registers"
  done
else
  step "no nvcc on the PATH: the kernels were not compiled for sm_90a"
fi
step "all well"
