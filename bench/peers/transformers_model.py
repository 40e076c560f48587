#!/usr/bin/env python3
"""How fast do PyTorch and transformers run the model that `gatun bench --models` runs? Prints JSON.

Same directory, same prompt ids, same number of steps, batch 1, greedy. As in Gatun, only the last row of the prompt
gets logits. Needs torch, transformers and safetensors; Gatun itself needs none of them.
"""
import argparse
import json
import statistics
import time

import torch
import transformers

PROMPT = 512
NEW_TOKENS = 33
WARM_UPS = 2
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()

    start = time.perf_counter()
    model = load(args.checkpoint, DTYPES[args.dtype])
    load_ms = (time.perf_counter() - start) * 1e3
    vocabulary = model.config.vocab_size
    length = min(PROMPT, model.config.max_position_embeddings - NEW_TOKENS)
    # the formula of io.gatun.bench.ModelBench.prompt
    prompt = torch.tensor([[(i * 7919 + 1) % vocabulary for i in range(length)]])

    prefill, rates = [], []
    for i in range(-WARM_UPS, args.rounds):
        prefill_s, step_s, output = generate(model, prompt, NEW_TOKENS)
        if i >= 0:
            prefill.append(prefill_s * 1e3)
            rates.append(1 / step_s)
    print(json.dumps({
        "peer": f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads",
        "dtype": args.dtype,
        "load_ms": load_ms,
        "prefill_ms": summary(prefill),
        "decode_tokens_per_s": summary(rates),
        "output": output,
    }))


def load(checkpoint, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=dtype, attn_implementation="sdpa").eval()


def generator(device, checkpoint, dtype, prompt, new_tokens):
    """For torch_gpt2.py: a function that generates once."""
    model = load(checkpoint, dtype).to(device)
    prompt = torch.tensor([prompt], device=device)

    def generate_once():
        prefill_s, step_s, output = generate(model, prompt, new_tokens)
        return {"prefill_ms": prefill_s * 1e3, "step_ms": step_s * 1e3, "output": output}
    return generate_once


@torch.inference_mode()
def generate(model, prompt, new_tokens):
    """Seconds of the prefill, seconds of one step on average, and the new ids."""
    start = time.perf_counter()
    result = model(prompt, use_cache=True, logits_to_keep=1)
    token = result.logits[:, -1].argmax(-1, keepdim=True)
    output = [token.item()]
    first = time.perf_counter()
    for _ in range(new_tokens - 1):
        result = model(token, past_key_values=result.past_key_values, use_cache=True)
        token = result.logits[:, -1].argmax(-1, keepdim=True)
        output.append(token.item())
    return first - start, (time.perf_counter() - first) / (new_tokens - 1), output


def summary(values):
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return {"median": statistics.median(ordered), "low": ordered[tenth], "high": ordered[-1 - tenth]}


if __name__ == "__main__":
    main()
