"""How fast are PyTorch's ways to run a GPT-2 checkpoint? Written out with CUDA graphs, and as transformers runs it.

A generation is: prompt, greedy, batch 1, each id read by the host as it comes, which is what Gatun does too.
"""
import json
import pathlib
import struct
import time

import torch
import torch.nn.functional as F

try:
    import transformers_model
except ImportError:
    transformers_model = None

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def transformers_version():
    return transformers_model and f"transformers {transformers_model.transformers.__version__}"


def variants(device, path, dtype, prompt, new):
    """Functions that generate once and say how long it took."""
    written_out = Gpt2(device, pathlib.Path(path), DTYPES[dtype], prompt, new)
    all_variants = {"torch, CUDA graphs" if device.type == "cuda" else "torch": written_out.generate}
    if transformers_model:
        all_variants["transformers"] = transformers_model.generator(device, path, DTYPES[dtype], prompt, new)
    return all_variants


def read_safetensors(file):
    """Without the library of that name, which may be absent."""
    data = file.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in info["data_offsets"])
            values = torch.frombuffer(bytearray(data[begin:end]), dtype=STORED[info["dtype"]])
            tensors[name.removeprefix("transformer.")] = values.view(info["shape"])
    return tensors


class Gpt2:
    """The whole model with a static cache; on a GPU one graph for the prompt and one for a step."""

    def __init__(self, device, path, dtype, prompt, new):
        config = json.loads((path / "config.json").read_text())
        self.heads, self.layers, self.eps = config["n_head"], config["n_layer"], config["layer_norm_epsilon"]
        self.w = {name: t.to(device, dtype) for name, t in read_safetensors(path / "model.safetensors").items()}
        self.new = new
        width = self.w["wte.weight"].shape[1]
        places = len(prompt) + new
        self.cache = torch.zeros(self.layers, 2, self.heads, places, width // self.heads, dtype=dtype, device=device)
        self.places = torch.arange(places, device=device)
        self.prompt = torch.tensor(prompt, device=device)
        self.token = torch.zeros(1, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.prefill = self.captured(self.run_prompt) if device.type == "cuda" else self.run_prompt
        self.step = self.captured(self.run_step) if device.type == "cuda" else self.run_step

    @staticmethod
    def captured(work):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def run_prompt(self):
        self.choose(self.prompt, self.places[:len(self.prompt)], None)
        self.position.fill_(len(self.prompt))

    def run_step(self):
        visible = (self.places <= self.position)[None, None]
        self.choose(self.token, self.position, visible)
        self.position.add_(1)

    def choose(self, ids, positions, visible):
        """Puts the next id into `token`; `visible`: which places a single query sees, None for a causal prompt."""
        w = self.w
        x = w["wte.weight"][ids] + w["wpe.weight"][positions]  # [T, C]
        for i in range(self.layers):
            layer = f"h.{i}."
            h = self.product(layer + "attn.c_attn", self.norm(layer + "ln_1", x))
            q, k, v = h.view(len(ids), 3, self.heads, -1).permute(1, 2, 0, 3)  # [H, T, D] each
            keys, values = self.cache[i]
            keys.index_copy_(1, positions, k)
            values.index_copy_(1, positions, v)
            if visible is None:
                y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)
            else:
                y = F.scaled_dot_product_attention(q[None], keys[None], values[None], attn_mask=visible)
            x = x + self.product(layer + "attn.c_proj", y[0].transpose(0, 1).reshape(x.shape))
            h = F.gelu(self.product(layer + "mlp.c_fc", self.norm(layer + "ln_2", x)), approximate="tanh")
            x = x + self.product(layer + "mlp.c_proj", h)
        logits = F.linear(self.norm("ln_f", x[-1:]), w["wte.weight"])
        self.token.copy_(logits.argmax(-1))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    def product(self, name, x):
        return torch.addmm(self.w[name + ".bias"], x, self.w[name + ".weight"])

    def generate(self):
        start = time.perf_counter()
        self.prefill()
        output = [self.token.item()]
        first = time.perf_counter()
        for _ in range(self.new - 1):
            self.step()
            output.append(self.token.item())
        return {"prefill_ms": (first - start) * 1e3, "step_ms": (time.perf_counter() - first) / (self.new - 1) * 1e3,
                "output": output}
