#!/usr/bin/env bash
# Makes one archive that tests and measures Gatun on a GPU host that has neither Java nor Maven:
# bench/target/gatun-gpu-suite.tar.xz. There: tar xf it and run gatun-gpu-suite/gpu-suite.sh [OUT_DIR].
#   bench/bundle.sh             builds everything, for which nvcc must be on the PATH
#   bench/bundle.sh --no-build  packs what the target folders hold
#   bench/bundle.sh --beside-checkout   leaves out what a checkout on that host has, golden data and peers: there,
#                               GATUN_CHECKOUT=DIR gpu-suite.sh. Smaller still for a Hopper: GATUN_CUDA_ARCHS=90a-real
set -euo pipefail
builds=1 beside_checkout=
for option; do
  case $option in
    --no-build) builds= ;;
    --beside-checkout) beside_checkout=1 ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) echo "bundle.sh: $option: expected --no-build or --beside-checkout" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/.."
limit_bytes=46000000
most_glibc=2.35 # of Ubuntu 22.04
target=$PWD/bench/target
stage=$target/bundle/gatun-gpu-suite

fail() { echo "bundle.sh: $*" >&2; exit 1; }

java_home=$(.mvn/find-jdk) || exit 2
[ -x "$java_home/bin/jlink" ] || fail "no jlink in $java_home: install a JDK, not a JRE"
command -v nvcc >/dev/null || fail "nvcc not found: install the CUDA toolkit, which the kernels are compiled by"
if [ "$builds" ]; then
  ./mvnw -B -q -DskipTests -Dgatun.flavour=cuda -Pbundle package
fi

rm -rf "$stage"
mkdir -p "$stage"/{lib,test-lib,tests,ptx,facts,native,root/bench}

# Jars go in unpacked and stored: xz then compresses better than the jars were.
store() { # jar, folder to put it
  local content=$target/bundle/content
  rm -rf "$content" && mkdir -p "$content"
  (cd "$content" && "$java_home/bin/jar" xf "$1")
  # the tokenizers of all platforms would be most of the archive
  find "$content/native/lib" -mindepth 1 -maxdepth 1 -type d ! -name linux-x86_64 -exec rm -r {} + 2>/dev/null || true
  "$java_home/bin/jar" -c0Mf "$2/$(basename "$1")" -C "$content" .
}

# All that runs, but what a GPU does not need: oneDNN, the benchmark of the host side, the stand-ins for CUDA, the demo
# models.
for jar in "$target"/dist/lib/*.jar; do
  case $(basename "$jar") in
    dnnl-* | jmh-* | jopt-simple-* | commons-math3-* | gatun-softgpu-*-linux-* | gatun-demo-models-*) ;;
    *) store "$jar" "$stage/lib" ;;
  esac
done
for jar in "$target"/test-dependencies/*.jar; do
  store "$jar" "$stage/test-lib"
done
grep -qx flavour=cuda native/target/jar/META-INF/gatun/linux-x86_64/libgatun.properties \
  || fail "libgatun is not of the flavour cuda"
glibc=$(sed -n 's/^glibc=//p' native/target/jar/META-INF/gatun/linux-x86_64/libgatun.properties)
[ "$(printf '%s\n' "$glibc" "$most_glibc" | sort -V | tail -n 1)" = "$most_glibc" ] \
  || fail "libgatun needs glibc $glibc, expected at most $most_glibc: a host with an older one could not load it"

# Tests and their data, where they look for it.
for module in runtime models; do
  cp -r "$module/target/test-classes" "$stage/tests/$module"
  mkdir -p "$stage/root/$module/src/test"
  cp -r "$module/src/test/resources" "$stage/root/$module/src/test/"
done
cp -r bench/peers "$stage/root/bench/"
rm -rf "$stage/root/bench/peers/__pycache__"

# Each test of a PTX wrapper, and what is measured of the GPU itself, as a program.
mkdir -p "$target"/{ptx,facts}
for source in native/test/ptx/*_test.cu bench/src/main/cuda/*.cu; do
  kind=$([[ $source == native/* ]] && echo ptx || echo facts)
  program=$target/$kind/$(basename "$source" .cu)
  if [ ! -e "$program" ] || [ -n "$(find "$source" native/test/ptx/*.h native/lib -type f -newer "$program")" ]; then
    echo "bundle.sh: nvcc $source"
    nvcc -std=c++17 -O2 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80 \
      -I native -I native/include -cudart static \
      -Xcompiler=-static-libstdc++,-static-libgcc -Xlinker=-s -o "$program.part" "$source"
    mv "$program.part" "$program"
  fi
  cp "$program" "$stage/$kind/"
done

# A Java with the modules that are needed, not compressed twice.
modules=java.base,java.desktop,java.logging,java.management,java.xml,jdk.jfr,jdk.unsupported
# No windows, sound, printing, XSLT or messages in other languages; a package must keep a class.
left_out=(/java.desktop/sun/{awt/X11,print}/[B-Z]* /java.desktop/com/sun/media/sound/[B-Z]*
  /java.desktop/com/sun/java/swing/plaf/gtk/GTK[C-Z]* /java.desktop/javax/swing/plaf/nimbus/[B-Z]*
  /java.desktop/javax/swing/plaf/basic/Basic[C-Z]* /java.desktop/javax/swing/plaf/metal/Metal[C-Z]*
  /java.desktop/javax/swing/plaf/synth/Synth[C-Z]* /java.desktop/javax/swing/text/{,html/}[D-Z]*
  /java.desktop/javax/swing/text/html/**.bdtd /java.xml/com/sun/org/apache/xalan/internal/xsltc/compiler/[C-Z]*
  /java.xml/com/sun/org/apache/bcel/internal/{generic,classfile}/[B-Z]* /java.xml/**_[a-z][a-z]*.class
  /java.base/sun/security/tools/**_[a-z][a-z]*.class)
"$java_home/bin/jlink" --add-modules "$modules" --strip-debug --no-header-files --no-man-pages --compress zip-0 \
  --exclude-resources "$(IFS=,; echo "${left_out[*]}")" --output "$stage/jre"
rm -f "$stage"/jre/lib/lib{awt_xawt,jawt,jsound,splashscreen}.so
find "$stage/jre" -name '*.so' -exec strip --strip-unneeded {} +

# Which classes have tests for a device, asked here rather than on the host.
for module in runtime models; do
  (cd "$stage" && jre/bin/java --enable-native-access=ALL-UNNAMED -cp "lib/*:test-lib/*:tests/runtime:tests/models" \
    org.junit.platform.console.ConsoleLauncher discover --disable-banner --disable-ansi-colors --details=verbose \
    --scan-classpath "tests/$module" --include-tag "device | cuda" | sed -n "s/.*className = '\([^'$]*\).*/\1/p")
done | sort -u >"$stage/device-tests"
[ -s "$stage/device-tests" ] || fail "no tests for a device were found"

if [ "$beside_checkout" ]; then
  rm -rf "$stage"/root "$stage"/tests/*/golden
fi

cp "$(g++ -print-file-name=libgomp.so.1)" "$stage/native/libgomp.so.1"
strip --strip-unneeded "$stage/native/libgomp.so.1"
cp bench/gpu-suite.sh "$stage/"
(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown) >"$stage/commit"
for text in LICENSE NOTICE; do cp "$text" "$stage/"; done

archive=$target/gatun-gpu-suite.tar.xz
tar -C "$target/bundle" --sort=name --owner=0 --group=0 -cf - gatun-gpu-suite \
  | xz --x86 --lzma2=preset=9e,dict=128MiB >"$archive"
bytes=$(stat -c %s "$archive")
echo "bundle.sh: $archive, $bytes bytes"
[ "$bytes" -le "$limit_bytes" ] || fail "the archive may have $limit_bytes bytes"
