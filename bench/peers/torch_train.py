#!/usr/bin/env python3
"""How fast does PyTorch make the training step that `gatun bench --train` makes? Prints JSON.

    torch_train.py gpt|unet CONFIG.json --batch B [--length T] [--dtype f32|bf16] [--threads N] [--device cpu|cuda]

Forward, backward, clipping to norm 1 and AdamW, on random data. Weights are f32; bf16 is autocast. gpt is
transformers' GPT2LMHeadModel without dropout, unet diffusers' UNet2DModel, channels last.
"""
import argparse
import contextlib
import json
import pathlib
import time

import torch

WARM_UPS = 2
DTYPES = {"f32": None, "bf16": torch.bfloat16}


def steps(device, task, config, dtype, batch, length):
    """By variant: a function that makes one step and returns its milliseconds."""
    torch.manual_seed(1)
    config = json.loads(pathlib.Path(config).read_text())
    model, loss = (gpt if task == "gpt" else unet)(device, config, batch, length)
    variants = {}
    for name, options in {"foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **options)
        variants[f"torch, AdamW {name}"] = step(device, model, loss, optimizer, DTYPES[dtype])
    return variants


def gpt(device, config, batch, length):
    import transformers
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        **config, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False)).to(device).train()
    ids = torch.randint(config["vocab_size"], (batch, length + 1), device=device)

    def loss():
        logits = model(ids[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return model, loss


def unet(device, config, batch, _):
    import diffusers
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    model = diffusers.UNet2DModel(**config).to(device, memory_format=torch.channels_last).train()
    shape = batch, config["in_channels"], config["sample_size"], config["sample_size"]
    images, noise = (torch.randn(shape, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    times = torch.randint(1000, (batch,), device=device)

    def loss():
        return torch.nn.functional.mse_loss(model(images, times).sample, noise)
    return model, loss


def step(device, model, loss, optimizer, dtype):
    def run():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value.item()
        return (time.perf_counter() - start) * 1e3
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["gpt", "unet"])
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    made = steps(torch.device(args.device), args.task, args.config, args.dtype, args.batch, args.length)
    for name, run in made.items():
        millis = sorted([run() for _ in range(WARM_UPS + args.rounds)][WARM_UPS:])
        print(json.dumps({"peer": f"torch {torch.__version__}, {name}, {args.threads} threads", "dtype": args.dtype,
                          "batch": args.batch, "median_ms": millis[len(millis) // 2]}))


if __name__ == "__main__":
    main()
