#!/usr/bin/env bash
# Tests and measures Gatun on this machine's GPU; lies in the archive that bundle.sh makes, beside a Java of its own.
#   ./gpu-suite.sh [OUT_DIR]          all of it; results.json, results.md and logs go there; exits 1 if a check failed
#   ./gpu-suite.sh --only PART,...    where time is short: facts, ptx, tests, large, sanitizer, hopper, train, kernels,
#                                     models; --minutes N leaves out what does not fit, --tests 'Norm*,..' all but those
#   ./gpu-suite.sh --dry-run          small sizes, to try the suite itself; with stand-ins for CUDA it needs no GPU
#   GATUN_CHECKOUT=DIR     where golden data and peers are, if the archive was made --beside-checkout
#   GATUN_CUDA_PATH=DIR    the folder of CUDA's libraries, where the search does not find the right one
#   PYTHON=python3         where torch is, to compare with, and perhaps CUDA's libraries as wheels
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
[ -d "$here/jre" ] || { echo "gpu-suite.sh: run it where the archive of bench/bundle.sh is unpacked; it has a Java" >&2; exit 2; }
python=${PYTHON:-python3}

# Wheels of CUDA's libraries are found through the environment they are installed in.
if [ -z "${VIRTUAL_ENV:-}" ] && command -v "$python" >/dev/null; then
  VIRTUAL_ENV=$("$python" -c 'import sys; print(sys.prefix)') \
    || { echo "gpu-suite.sh: PYTHON is $python, expected a Python 3 that runs" >&2; exit 2; }
  export VIRTUAL_ENV
fi
# libgatun's threads on the CPU; a machine without a compiler may have no libgomp.
if ! ldconfig -p 2>/dev/null | grep -q 'libgomp\.so\.1'; then
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/native"
fi

if [ -n "${GATUN_CHECKOUT:-}" ]; then
  for folder in . runtime/src/test/resources/golden models/src/test/resources/golden; do
    [ -d "$GATUN_CHECKOUT/$folder" ] || { echo "gpu-suite.sh: GATUN_CHECKOUT: no $GATUN_CHECKOUT/$folder" >&2; exit 2; }
  done
  [ -L "$here/root" ] || [ ! -e "$here/root" ] \
    || { echo "gpu-suite.sh: unset GATUN_CHECKOUT: this archive has golden data and peers itself" >&2; exit 2; }
  checkout=$(cd "$GATUN_CHECKOUT" && pwd)
  ln -sfn "$checkout" "$here/root"
  for module in runtime models; do
    ln -sfn "$checkout/$module/src/test/resources/golden" "$here/tests/$module/golden"
  done
fi
[ -d "$here/root" ] || { echo "gpu-suite.sh: set GATUN_CHECKOUT=DIR: this archive has no golden data" >&2; exit 2; }

options=("-Dgatun.suite=$here" "-Dgatun.home=$here/root" "-Dgatun.root=$here/root" "-Dgatun.cache=$here/cache"
  "-Dgatun.commit=$(<"$here/commit")")
[ -z "${GATUN_CUDA_PATH:-}" ] || options+=("-Dgatun.cuda.path=$GATUN_CUDA_PATH")
exec "$here/jre/bin/java" "${options[@]}" -cp "$here/lib/*" io.gatun.bench.gpu.GpuSuite "$@"
