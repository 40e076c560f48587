#!/usr/bin/env python3
"""How fast does diffusers run the network that `gatun bench --images` runs? Prints JSON.

    diffusers_unet.py DIR [--dtype f32|bf16] [--batch B] [--threads N] [--device cpu|cuda]

Channels last, no gradients, the size that the network was trained for. Needs torch, diffusers and safetensors; Gatun
itself needs none of them.
"""
import argparse
import json
import pathlib
import statistics
import time

import torch

WARM_UPS = 2
TEXT_LENGTH = 77
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def passes(device, path, dtype, batch):
    """By variant: a function that runs one pass and returns its milliseconds."""
    import diffusers
    name = json.loads((pathlib.Path(path) / "config.json").read_text())["_class_name"]
    model = getattr(diffusers, name).from_pretrained(path, torch_dtype=DTYPES[dtype])
    model = model.to(device, memory_format=torch.channels_last).eval()
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    sample = torch.randn(batch, model.config.in_channels, height, width, device=device, dtype=DTYPES[dtype])
    sample = sample.to(memory_format=torch.channels_last)
    inputs = [sample, torch.full((batch,), 500, device=device)]
    if "cross_attention_dim" in model.config:
        inputs.append(torch.randn(batch, TEXT_LENGTH, model.config.cross_attention_dim, device=device,
                                  dtype=DTYPES[dtype]))

    @torch.inference_mode()
    def run():
        start = time.perf_counter()
        model(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1e3
    return {"diffusers, channels last": run}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, run in passes(torch.device(args.device), args.checkpoint, args.dtype, args.batch).items():
        millis = sorted([run() for _ in range(WARM_UPS + args.rounds)][WARM_UPS:])
        tenth = len(millis) // 10
        print(json.dumps({"peer": f"torch {torch.__version__}, {name}, {args.threads} threads", "dtype": args.dtype,
                          "batch": args.batch, "ms": {"median": statistics.median(millis), "low": millis[tenth],
                                                      "high": millis[-1 - tenth]}}))


if __name__ == "__main__":
    main()
