#!/usr/bin/env bash
# How fast is Gatun against PyTorch with transformers, on one checkpoint, in one job, the two taking turns?
#   bench/peers/compare.sh CHECKPOINT_DIR [f32|bf16]
#   PYTHON=...    a Python with torch, transformers and safetensors (default: python3)
#   GATUN=...     the launcher (default: gatun of this checkout)
#   THREADS=2  RUNS=3  OUT=DIR (default: a temporary folder; holds the JSON of each run)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ -d "${1:-}" ] || { echo "usage: compare.sh CHECKPOINT_DIR [f32|bf16]" >&2; exit 2; }
checkpoint=$1 dtype=${2:-f32}
python=${PYTHON:-python3}
gatun=${GATUN:-$here/../../gatun}
threads=${THREADS:-2}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
rm -f "$out"/ours.*.json "$out"/theirs.*.json

"$python" -c 'import torch, transformers, safetensors' || {
  echo "compare.sh: $python lacks torch, transformers or safetensors: set PYTHON to one that has them" >&2
  exit 2
}
for run in $(seq "${RUNS:-3}"); do
  "$gatun" bench --models --model "$checkpoint" --dtype "$dtype" --threads "$threads" --json "$out/ours.$run.json" \
    >"$out/ours.$run.txt"
  "$python" "$here/transformers_model.py" "$checkpoint" --dtype "$dtype" --threads "$threads" >"$out/theirs.$run.json"
done
"$python" "$here/ratios.py" "$out"
echo "all runs: $out"
