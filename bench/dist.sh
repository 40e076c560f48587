#!/usr/bin/env bash
# Lays out what the launcher runs: every jar in TARGET/dist/lib, and a mark when that is complete. Jars that have not
# changed keep their time stamps, so the launcher's AOT cache stays valid; when one changes the cache goes.
#   bench/dist.sh TARGET OWN_JAR     TARGET/dependencies holds the other jars
set -euo pipefail
target=$1 own=$2
dist=$target/dist
mkdir -p "$dist/lib"
changed=
for jar in "$target"/dependencies/*.jar "$own"; do
  to=$dist/lib/$(basename "$jar")
  if ! cmp -s "$jar" "$to"; then
    cp "$jar" "$to"
    changed=1
  fi
done
for jar in "$dist"/lib/*.jar; do
  name=$(basename "$jar")
  if [ ! -e "$target/dependencies/$name" ] && [ "$name" != "$(basename "$own")" ]; then
    rm "$jar"
    changed=1
  fi
done
[ -z "$changed" ] || rm -f "$dist"/*.aot
touch "$dist/complete"
