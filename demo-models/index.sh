#!/usr/bin/env bash
# Writes FOLDER/index: SHA-256, bytes and name of each file in the model directories of FOLDER.
#   demo-models/index.sh FOLDER
set -euo pipefail
cd "$1"
find . -mindepth 2 -type f -printf '%P\n' | LC_ALL=C sort | while read -r file; do
  echo "$(sha256sum <"$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
done >index.part
mv index.part index
