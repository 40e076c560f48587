#!/usr/bin/env python3
"""Records the trainings of unet_edm: unet_lsimple's network and pictures, trained as a denoiser of EDM.

    python make_edm.py              writes the folder beside this file; needs torch, diffusers and safetensors

Karras et al. 2022, arXiv 2206.00364, as the paper has it: y = x + sigma n, D(y) = c_skip y + c_out F(c_in y, c_noise),
loss = mean of lambda (D(y) - x)^2 over all elements, before each update; AdamW with learning rate 1e-3 and weight decay
0.01 of all parameters, without clipping. In float64, of float32 weights, pictures, noise and sigmas. The sigmas of the
first step are the smallest and the largest that samplers have, and 1; those of the others are log-normal with p_mean
-1.2 and p_std 1.2. With `v_prediction` c_out has the other sign.
"""
import json
import pathlib

import torch
from diffusers import EDMEulerScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
STEPS, BATCH = 10, 3
RUNS = {"epsilon": 0.5, "v_prediction": 0.8}  # sigma_data


def train(prediction_type, sigma_data, images, noise, sigmas):
    model = UNet2DModel.from_pretrained(HERE / "unet_lsimple" / "model").double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    sign = -1 if prediction_type == "v_prediction" else 1
    scheduler = EDMEulerScheduler(sigma_data=sigma_data, prediction_type=prediction_type)
    losses = []
    for x, n, sigma in zip(images, noise, sigmas):
        s = sigma.reshape(-1, 1, 1, 1)
        y = x + s * n
        c_skip = sigma_data**2 / (s**2 + sigma_data**2)
        c_out = sign * s * sigma_data / (s**2 + sigma_data**2).sqrt()
        c_in = 1 / (s**2 + sigma_data**2).sqrt()
        c_noise = sigma.log() / 4
        weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
        output = model(c_in * y, c_noise).sample
        denoised = c_skip * y + c_out * output
        torch.testing.assert_close(c_in * y, scheduler.precondition_inputs(y, s))
        torch.testing.assert_close(denoised, scheduler.precondition_outputs(y, output, s))
        loss = (weight * (denoised - x) ** 2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(losses)


if __name__ == "__main__":
    pictures = load_file(HERE / "unet_lsimple" / "io.safetensors")["images"]
    generator = torch.Generator().manual_seed(9)
    index = torch.randint(len(pictures), (STEPS, BATCH), generator=generator)
    noise = torch.randn((STEPS, BATCH, *pictures.shape[1:]), generator=generator)
    sigmas = (-1.2 + 1.2 * torch.randn((STEPS, BATCH), generator=generator)).exp()
    sigmas[0] = torch.tensor([0.002, 80.0, 1.0])
    tensors = {"images": pictures, "batch_index": index, "noise": noise, "sigmas": sigmas}
    for name, sigma_data in RUNS.items():
        tensors["losses." + name] = train(name, sigma_data, pictures[index].double(), noise.double(), sigmas.double())
    folder = HERE / "unet_edm"
    folder.mkdir(exist_ok=True)
    save_file({k: v if k == "batch_index" else v.float() for k, v in tensors.items()}, folder / "io.safetensors")
    (folder / "case.json").write_text(json.dumps({
        "case": "train/unet_edm", "what": "the UNet2DModel of unet_lsimple trained as EDM's denoiser, by make_edm.py",
        "sigma_data": RUNS, "tolerance": {"kind": "losses: relative", "loss_rel_hint": 1e-4},
        "versions": {"torch": torch.__version__},
    }, indent=1) + "\n")
