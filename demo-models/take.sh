#!/usr/bin/env bash
# Takes the model of a finished run into the artifact, in place of the one of that name: the directory RUN/model, and
# the run's recipe, which goes to docs/recipes/NAME.json too. README.md, the model card, is written by hand and stays.
#   demo-models/take.sh RUN NAME
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: demo-models/take.sh RUN NAME" >&2; exit 2; }
run=$1 name=$2
root=$(cd "$(dirname "$0")/.." && pwd)
to=$root/demo-models/src/main/resources/META-INF/gatun/demo-models/$name
for needed in model recipe.json; do
  [ -e "$run/$needed" ] || { echo "take.sh: $run/$needed is not there: has the run finished?" >&2; exit 2; }
done
mkdir -p "$to"
find "$to" -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -r {} +
cp -r "$run/model/." "$to/"
cp "$run/recipe.json" "$to/"
cp "$run/recipe.json" "$root/docs/recipes/$name.json"
du -sh "$to"
