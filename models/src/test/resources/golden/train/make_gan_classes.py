#!/usr/bin/env python3
"""Records the trainings of gan_classes_bce and gan_classes_wgan_gp: the DCGANs of gan_bce with classes.

    python make_gan_classes.py      writes the folders beside this file; needs torch and safetensors

Both networks are told the class: the generator by a row of 0 with a 1 after its noise (Mirza and Osindero 2014, arXiv
1411.1784), the discriminator by that one of its outputs, one per class, which counts. In float64, of float32 weights,
pictures and noise. The running statistics of the generator move in its own updates alone.
"""
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
STEPS, BATCH, LATENTS, CLASSES = 10, 4, 16, 3


def networks(grouped):
    nn = torch.nn
    norm = nn.GroupNorm(4, 16) if grouped else nn.BatchNorm2d(16)
    g = nn.Sequential(
        nn.ConvTranspose2d(LATENTS + CLASSES, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh())
    d = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1, bias=False), norm,
        nn.LeakyReLU(0.2), nn.Conv2d(16, CLASSES, 4, 1, 0, bias=False))
    return g, d


def momentum(network, value):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = value


def state(g, d):
    tensors = {"G." + k: v for k, v in g.state_dict().items()} | {"D." + k: v for k, v in d.state_dict().items()}
    return {k: v.detach().clone().contiguous() for k, v in tensors.items()}


def train(name, real, lam):
    generator = torch.Generator().manual_seed(11)
    torch.manual_seed(12)
    g, d = networks(lam > 0)
    initial = {k: v.float() if v.is_floating_point() else v for k, v in state(g, d).items()}
    g, d = g.double(), d.double()
    index = torch.randint(len(real), (STEPS, BATCH), generator=generator)
    labels = torch.randint(CLASSES, (STEPS, BATCH), generator=generator)
    z = torch.randn((STEPS, BATCH, LATENTS), generator=generator)
    alpha = torch.rand((STEPS, BATCH), generator=generator)
    betas = (0.0, 0.9) if lam else (0.5, 0.999)
    of_g, of_d = (torch.optim.Adam(net.parameters(), lr=1e-3, betas=betas) for net in (g, d))
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    tensors = {"real": real, "batch_index": index, "labels": labels, "z": z, "alpha": alpha, "loss_D": [],
               "loss_G": [], "gradient_penalty": []}

    def draw(noise, classes):
        one_hot = torch.nn.functional.one_hot(classes, CLASSES)
        return g(torch.cat([noise.double(), one_hot.double()], 1)[:, :, None, None])

    def said(x, classes):
        return d(x)[:, :, 0, 0].gather(1, classes[:, None])[:, 0]

    for step in range(STEPS):
        x, c = real[index[step]].double(), labels[step]
        momentum(g, 0)
        with torch.no_grad():
            fake = draw(z[step], c)
        momentum(g, 0.1)
        on_real, on_fake = said(x, c), said(fake, c)
        if lam:
            a = alpha[step].double().reshape(-1, 1, 1, 1)
            mixed = (a * x + (1 - a) * fake).requires_grad_()
            slope, = torch.autograd.grad(said(mixed, c).sum(), mixed, create_graph=True)
            penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
            loss = on_fake.mean() - on_real.mean() + lam * penalty
            tensors["gradient_penalty"].append(penalty.item())
        else:
            loss = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        tensors["loss_D"].append(loss.item())
        on_fake = said(draw(z[step], c), c)
        loss = -on_fake.mean() if lam else bce(on_fake, torch.ones_like(on_fake))
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        tensors["loss_G"].append(loss.item())
    g.eval()
    tensors["z_eval"] = torch.randn((CLASSES, LATENTS), generator=generator)
    with torch.no_grad():
        tensors["image_eval"] = draw(tensors["z_eval"], torch.arange(CLASSES))
    last = state(g, d)
    tensors |= {"final." + k: v for k, v in last.items()}
    folder = HERE / name
    (folder / "model").mkdir(parents=True, exist_ok=True)
    tensors = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in tensors.items()}
    save_file({k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()},
              folder / "io.safetensors")
    save_file(initial, folder / "model" / "initial.safetensors")
    tolerance = {"weights_hint": {k: 1e-5 for k in last if not k.endswith("tracked")}, "image_hint": 1e-5}
    case = {"case": "train/" + name, "what": __doc__.split("\n")[0], "tolerance": tolerance}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


if __name__ == "__main__":
    pictures = load_file(HERE / "gan_bce" / "io.safetensors")["real"]
    train("gan_classes_bce", pictures, 0)
    train("gan_classes_wgan_gp", pictures, 10)
