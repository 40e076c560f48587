#!/usr/bin/env python3
"""PyTorch as the peer of `gatun bench --peer`: does what a request names, and answers.

    torch_peer.py cpu|cuda[:N] THREADS

A request is one line of JSON on standard input, its answer one line on standard output (io.gatun.bench.TorchPeer).
"""
import json
import pathlib
import sys

try:
    import torch
except ModuleNotFoundError as e:
    sys.exit(f"torch_peer.py: {e} in {sys.executable}: --peer takes a Python with torch")

import diffusers_unet
import diffusers_vae
import torch_gpt2
import torch_kernels
import torch_train

COPIES = 4


class Peer:
    def __init__(self, device):
        self.device = device
        self.kernel = None
        self.models = []
        self.networks = []
        self.trainings = []

    def hello(self):
        name = f"torch {torch.__version__}"
        if self.device.type == "cuda":
            name += (f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()},"
                     f" {torch.cuda.get_device_name(self.device)}")
        return {"peer": f"{name}, {torch_gpt2.transformers_version() or 'no transformers'}"}

    def copy(self, bytes):
        source = torch.randn(bytes // 8, device=self.device)
        target = torch.empty_like(source)
        seconds = torch_kernels.timed(self.device, lambda: target.copy_(source), COPIES)
        return {"rate": 2 * source.nbytes / seconds}

    def kernel_case(self, **case):
        self.forget()
        self.kernel = torch_kernels.Kernel(self.device, **case)
        return {"variants": list(self.kernel.runs), "skipped": self.kernel.skipped}

    def repeat(self):
        return {"nanos": self.kernel.repeat()}

    def forget(self):
        self.kernel = None
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        return {}

    def model(self, **case):
        self.models.append(torch_gpt2.variants(self.device, **case))
        return {"model": len(self.models) - 1}

    def round(self, model):
        return {"rounds": {name: generate() for name, generate in self.models[model].items()}}

    def image_network(self, path, dtype, batch):
        config = json.loads((pathlib.Path(path) / "config.json").read_text())
        peer = diffusers_vae if config["_class_name"] == "AutoencoderKL" else diffusers_unet
        self.networks.append(peer.passes(self.device, path, dtype, batch))
        return {"network": len(self.networks) - 1}

    def training(self, task, config, dtype, batch, length):
        with torch.enable_grad():
            runs, skipped = torch_train.steps(self.device, task, config, dtype, batch, length)
        self.trainings.append(runs)
        return {"training": len(self.trainings) - 1, "skipped": skipped}

    def training_steps(self, training, steps):
        with torch.enable_grad():
            return {"millis": {name: run(steps) for name, run in self.trainings[training].items()}}

    def image_pass(self, network):
        return {"millis": {name: run() for name, run in self.networks[network].items()}}


def main():
    device = torch.device(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    peer = Peer(device)
    answers = {"hello": peer.hello, "copy": peer.copy, "kernel": peer.kernel_case, "repeat": peer.repeat,
               "forget": peer.forget, "model": peer.model, "round": peer.round,
               "image_network": peer.image_network, "image_pass": peer.image_pass,
               "training": peer.training, "training_steps": peer.training_steps}
    channel = sys.stdout
    sys.stdout = sys.stderr  # whatever libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = answers[request.pop("do")](**request)
        except Exception as e:  # the other side decides what to do without this answer
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), file=channel, flush=True)


if __name__ == "__main__":
    main()
