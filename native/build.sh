#!/usr/bin/env bash
# Builds libgatun for the Maven build: the flavour to ship into TARGET/jar, and for the tests TARGET/softgpu, a CUDA
# without a GPU: the stand-ins for NVIDIA's libraries and the soft flavour (CUDA kernels on the SIMT emulator).
#   native/build.sh auto|cpu|cuda TARGET VERSION
#   GATUN_CUDA_ARCHS='90a-real;80-virtual'   for which GPUs the flavour cuda is compiled, as CMake writes them
set -euo pipefail
flavour=$1 target=$2 version=$3
cd "$(dirname "$0")"
for tool in cmake g++; do
  command -v $tool >/dev/null ||
    { echo "build.sh: $tool not found: install a C++17 compiler and CMake 3.22 or later" >&2; exit 1; }
done
if [ "$flavour" = auto ]; then
  if command -v nvcc >/dev/null; then flavour=cuda; else flavour=cpu; fi
  echo "build.sh: flavour $flavour ($(command -v nvcc || echo 'no nvcc on the PATH'))"
fi
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)

build() { # flavour, cmake target, more cmake options
  cmake -S . -B "$target/$1" "${generator[@]}" -DGATUN_FLAVOUR="$1" -DGATUN_VERSION="$version" "${@:3}" \
    >"$target/$1-cmake.log" 2>&1 \
    || { cat "$target/$1-cmake.log" >&2; exit 1; }
  cmake --build "$target/$1" --parallel "$(nproc)" --target "$2" >"$target/$1-build.log" 2>&1 \
    || { tail -n 60 "$target/$1-build.log" >&2; exit 1; }
  grep -E 'Linking|up to date|no work to do' "$target/$1-build.log" | tail -n 1 || true
}
mkdir -p "$target"
if [ -n "${GATUN_CUDA_ARCHS:-}" ]; then archs=-DGATUN_CUDA_ARCHS=$GATUN_CUDA_ARCHS; else archs=-UGATUN_CUDA_ARCHS; fi
build "$flavour" gatun "$archs"
build soft softgpu -DGATUN_SOFTGPU_DIR="$target/softgpu"

# What the classifier jar holds. A library that has not changed keeps its time stamp, so the jar is not rebuilt.
jar=$target/jar/META-INF/gatun/linux-x86_64
mkdir -p "$jar"
strip -o "$target/libgatun.stripped" "$target/$flavour/libgatun.so"
cmp -s "$target/libgatun.stripped" "$jar/libgatun.so" || cp "$target/libgatun.stripped" "$jar/libgatun.so"
# What the jar of the test kit holds: the folder of stand-ins, whole.
kit=$target/softgpu-jar/META-INF/gatun/softgpu/linux-x86_64
mkdir -p "$kit"
for file in "$target"/softgpu/*.so*; do
  cmp -s "$file" "$kit/${file##*/}" || cp "$file" "$kit/"
done
glibc=$(objdump -T "$jar/libgatun.so" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1 | cut -d_ -f2)
printf 'version=%s\nflavour=%s\nglibc=%s\nsha256=%s\n' "$version" "$flavour" "$glibc" \
  "$(sha256sum "$jar/libgatun.so" | cut -d' ' -f1)" > "$target/libgatun.properties"
cmp -s "$target/libgatun.properties" "$jar/libgatun.properties" || cp "$target/libgatun.properties" "$jar/"
echo "build.sh: $(stat -c %s "$jar/libgatun.so") bytes, needs glibc $glibc"
