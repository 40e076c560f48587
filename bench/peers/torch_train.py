#!/usr/bin/env python3
"""How fast does PyTorch make the training step that `gatun bench --train` makes? Prints JSON.

    torch_train.py gpt124m|gpt|unet CONFIG.json --batch B [--length T] [--dtype f32|bf16] [--threads N]
                   [--device cpu|cuda]

Forward, backward, clipping to norm 1 and AdamW, on random data. Weights are f32; bf16 is autocast. gpt is
transformers' GPT2LMHeadModel without dropout, unet diffusers' UNet2DModel, channels last; gpt124m is written out here,
and compiled where there is a GPU.
"""
import argparse
import contextlib
import functools
import json
import pathlib
import time

import torch
import torch.nn.functional as F

WARM_UPS = 2
DTYPES = {"f32": None, "bf16": torch.bfloat16}


def steps(device, task, config, dtype, batch, length):
    """By variant a function that makes so many steps and returns the milliseconds of one; and why others do not work.

    What a variant compiles is compiled here.
    """
    torch.manual_seed(1)
    config = json.loads(pathlib.Path(config).read_text())
    model, loss = {"gpt124m": written_out_gpt, "gpt": gpt, "unet": unet}[task](device, config, batch, length)
    fused, foreach = {"fused": True}, {"foreach": True}
    if task == "gpt124m":
        variants = {"torch, AdamW fused": (loss, fused)}
        if device.type == "cuda":
            compiled = functools.partial(torch.compile(model, dynamic=False), *loss.args)
            variants["torch.compile, AdamW fused"] = compiled, fused
    else:
        variants = {"torch, AdamW foreach": (loss, foreach), "torch, AdamW fused": (loss, fused)}
    runs, skipped = {}, {}
    for name, (function, options) in variants.items():
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, **options)
        runs[name] = step(device, model, function, optimizer, DTYPES[dtype])
        if device.type == "cuda":
            try:
                runs[name](WARM_UPS)
            except Exception as e:  # whatever it is, this variant does not work here
                del runs[name]
                skipped[name] = f"{type(e).__name__}: {e}".splitlines()[0]
    return runs, skipped


class Block(torch.nn.Module):
    """Of GPT-2, as its users write it: one product for q, k and v, attention by the library's choice."""

    def __init__(self, width, heads, eps):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width, eps), torch.nn.LayerNorm(width, eps)
        self.qkv, self.proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    """GPT-2 with a tied head; returns the mean cross-entropy."""

    def __init__(self, config):
        super().__init__()
        width, eps = config["n_embd"], config["layer_norm_epsilon"]
        self.wte = torch.nn.Embedding(config["vocab_size"], width)
        self.wpe = torch.nn.Embedding(config["n_positions"], width)
        self.blocks = torch.nn.ModuleList(Block(width, config["n_head"], eps) for _ in range(config["n_layer"]))
        self.ln_f = torch.nn.LayerNorm(width, eps)
        for p in self.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.02)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight[:ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def written_out_gpt(device, config, batch, length):
    with torch.device(device):
        model = Gpt(config).train()
    ids = torch.randint(config["vocab_size"], (batch, length + 1), device=device)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return model, functools.partial(model, inputs, targets)


def gpt(device, config, batch, length):
    import transformers
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        **config, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False)).to(device).train()
    ids = torch.randint(config["vocab_size"], (batch, length + 1), device=device)

    def loss():
        logits = model(ids[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return model, loss


def unet(device, config, batch, _):
    import diffusers
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    model = diffusers.UNet2DModel(**config).to(device, memory_format=torch.channels_last).train()
    shape = batch, config["in_channels"], config["sample_size"], config["sample_size"]
    images, noise = (torch.randn(shape, device=device).to(memory_format=torch.channels_last) for _ in range(2))
    times = torch.randint(1000, (batch,), device=device)

    def loss():
        return F.mse_loss(model(images, times).sample, noise)
    return model, loss


def step(device, model, loss, optimizer, dtype):
    def run(times=1):
        start = time.perf_counter()
        for _ in range(times):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
                value = loss()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        value.item()
        return (time.perf_counter() - start) * 1e3 / times
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["gpt124m", "gpt", "unet"])
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs, skipped = steps(torch.device(args.device), args.task, args.config, args.dtype, args.batch, args.length)
    for name, run in runs.items():
        millis = sorted([run() for _ in range(WARM_UPS + args.rounds)][WARM_UPS:])
        print(json.dumps({"peer": f"torch {torch.__version__}, {name}, {args.threads} threads", "dtype": args.dtype,
                          "batch": args.batch, "median_ms": millis[len(millis) // 2]}))
    for name, reason in skipped.items():
        print(json.dumps({"peer": name, "skipped": reason}))


if __name__ == "__main__":
    main()
