#!/usr/bin/env python3
"""How fast does diffusers decode latents with the AutoencoderKL that `gatun bench --images` runs? Prints JSON.

    diffusers_vae.py DIR [--dtype f32|bf16] [--batch B] [--threads N] [--device cpu|cuda]
    diffusers_vae.py DIR --make       writes Stable Diffusion's VAE with random weights to DIR

Channels last, no gradients, the size that the network was trained for. Needs torch, diffusers and safetensors; Gatun
itself needs none of them.
"""
import argparse
import json
import resource
import statistics
import time

import torch

WARM_UPS = 1
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def make(path):
    import diffusers
    torch.manual_seed(1)
    diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=512).save_pretrained(path)


def passes(device, path, dtype, batch):
    """By variant: a function that decodes once and returns its milliseconds."""
    import diffusers
    vae = diffusers.AutoencoderKL.from_pretrained(path, torch_dtype=DTYPES[dtype])
    vae = vae.to(device, memory_format=torch.channels_last).eval()
    side = vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1)
    latents = torch.randn(batch, vae.config.latent_channels, side, side, device=device, dtype=DTYPES[dtype])
    latents = latents.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run():
        start = time.perf_counter()
        vae.decode(latents)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1e3
    return {"diffusers, channels last": run}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.make:
        make(args.checkpoint)
        return
    torch.set_num_threads(args.threads)
    for name, run in passes(torch.device(args.device), args.checkpoint, args.dtype, args.batch).items():
        millis = sorted([run() for _ in range(WARM_UPS + args.rounds)][WARM_UPS:])
        print(json.dumps({"peer": f"torch {torch.__version__}, {name}, {args.threads} threads", "dtype": args.dtype,
                          "batch": args.batch, "ms": {"median": statistics.median(millis), "low": millis[0],
                                                      "high": millis[-1]},
                          "peak_rss_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
