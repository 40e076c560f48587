#!/usr/bin/env python3
"""How do the results of compare.sh relate? Reads ours.N.json and theirs.N.json of a folder for N = 1, 2, ...

Prints the median of each run and the ratio of each pair of runs: pairs ran one after the other, so a busy machine slows
both.
"""
import json
import pathlib
import statistics
import sys


def ours(file):
    report = json.loads(file.read_text())
    medians = {}
    for row in report["models"]:
        if row["measure"].startswith("prefill of"):
            medians["prefill ms"] = row["median"]
        elif row["measure"].startswith("decode at"):
            medians["decode tokens/s"] = row["median"]
    dtype = report["models"][0]["dtype"]
    return report["machine"], medians, report["output_" + dtype]


def theirs(file):
    report = json.loads(file.read_text())
    medians = {"prefill ms": report["prefill_ms"]["median"],
               "decode tokens/s": report["decode_tokens_per_s"]["median"]}
    return report["peer"], medians, report["output"]


def main():
    folder = pathlib.Path(sys.argv[1])
    pairs = [(ours(file), theirs(folder / file.name.replace("ours", "theirs")))
             for file in sorted(folder.glob("ours.*.json"))]
    (machine, _, our_ids), (peer, _, their_ids) = pairs[0]
    print(f"ours    {machine['device']}, commit {machine['commit']}, {machine['cpu']}, {machine['cores']} cores")
    print(f"theirs  {peer}")
    same = next((i for i, (a, b) in enumerate(zip(our_ids, their_ids)) if a != b), len(our_ids))
    print(f"greedy ids equal for the first {same} of {len(our_ids)} tokens")
    print(f"{'':16} {'ours':>10} {'theirs':>10} {'faster by':>10}   of each pair")
    for measure in ("prefill ms", "decode tokens/s"):
        a = [pair[0][1][measure] for pair in pairs]
        b = [pair[1][1][measure] for pair in pairs]
        ratios = [y / x if measure.endswith("ms") else x / y for x, y in zip(a, b)]
        print(f"{measure:16} {statistics.median(a):10.1f} {statistics.median(b):10.1f} {statistics.median(ratios):10.2f}"
              f"   {' '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
