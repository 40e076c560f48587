"""Writes cases of this folder: tiny pipelines of diffusers with random weights, what they start from, their images.

    python make_pipelines.py    needs numpy, torch, transformers, diffusers, safetensors

Latents are those before multiplication by init_noise_sigma, images [B, 3, H, W] in [0, 1]. XL's directory has no
tokenizers: they are those of stable_diffusion. The arithmetic is that of float32.
"""
import json
import pathlib
import shutil

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, DiTPipeline, DiTTransformer2DModel,
                       DPMSolverMultistepScheduler, EulerDiscreteScheduler, LDMPipeline, StableDiffusionPipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel, UNet2DModel, VQModel)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
TOKENIZER = HERE / "stable_diffusion/pipeline/tokenizer"
PROMPTS = ["a photo of the King of France", "My horse, my HORSE!"]


def randomise(model, seed):
    """Norm weights near 1, biases that show, the rest as large as keeps signals alive."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if p.ndim == 1:
                p.copy_((1 if name.endswith("weight") else 0) + 0.1 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
    return model.eval()


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def write(folder, what, tensors):
    save_file({k: v.detach().contiguous().float() for k, v in tensors.items()}, folder / "io.safetensors")
    (folder / "case.json").write_text(json.dumps({"case": f"pipeline/{folder.name}", "what": what,
                                                  "tolerance": {"kind": "max_abs", "fp32_hint": 1e-3}}, indent=1))


def start(shape, seed):
    """A generator, and the noise that a pipeline draws from it first."""
    return torch.Generator().manual_seed(seed), torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels_first(images):
    return torch.as_tensor(np.asarray(images)).permute(0, 3, 1, 2)


def vae(seed, channels):
    return randomise(AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, layers_per_block=1, latent_channels=channels,
        sample_size=16, scaling_factor=0.5), seed)


def dit():
    """Classes 3 and 999 of 1000 with guidance 4 and with none; the network predicts variances too."""
    folder = fresh("dit")
    net = randomise(DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
                                          num_layers=1, sample_size=8, patch_size=2, num_embeds_ada_norm=1000), 1)
    pipe = DiTPipeline(net, vae(2, 4), DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "pipeline")
    tensors = {}
    other = DPMSolverMultistepScheduler.from_pretrained(folder / "pipeline/scheduler")
    for name, scheduler in ("ddim", pipe.scheduler), ("dpm++", other):
        pipe.scheduler = scheduler
        generator, tensors["latents"] = start((2, 4, 8, 8), 3)
        tensors[name] = channels_first(pipe([3, 999], 4.0, generator, 3, output_type="np").images)
    pipe.scheduler = DDIMScheduler(clip_sample=False)
    generator, _ = start((2, 4, 8, 8), 3)
    tensors["unguided"] = channels_first(pipe([3, 999], 1.0, generator, 3, output_type="np").images)
    write(folder, dit.__doc__, tensors)


def ldm():
    """Unconditional latent diffusion; latents become rows of the codebook."""
    folder = fresh("ldm")
    net = randomise(UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 12),
                                down_block_types=("DownBlock2D", "AttnDownBlock2D"), norm_num_groups=4,
                                up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
                                attention_head_dim=4), 4)
    vq = randomise(VQModel(block_out_channels=(8, 12), down_block_types=("DownEncoderBlock2D",) * 2,
                           up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, layers_per_block=1,
                           latent_channels=3, num_vq_embeddings=32, vq_embed_dim=3, sample_size=16), 5)
    pipe = LDMPipeline(vq, net, DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "pipeline")
    generator, latents = start((2, 3, 8, 8), 6)
    images = pipe(batch_size=2, generator=generator, num_inference_steps=3, output_type="np").images
    write(folder, ldm.__doc__, {"latents": latents, "ddim": channels_first(images)})


def classes():
    """A network alone, with its scheduler beside it, told classes 1 and 4 of 5."""
    folder = fresh("class_unet2d")
    net = randomise(UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 12),
                                down_block_types=("DownBlock2D", "AttnDownBlock2D"), norm_num_groups=4,
                                up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
                                attention_head_dim=4, num_class_embeds=5), 7)
    scheduler = DDIMScheduler()
    net.save_pretrained(folder / "pipeline")
    scheduler.save_pretrained(folder / "pipeline")
    _, latents = start((2, 3, 8, 8), 8)
    x = latents
    scheduler.set_timesteps(3)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, class_labels=torch.tensor([1, 4])).sample, t, x).prev_sample
    write(folder, classes.__doc__, {"latents": latents, "ddim": (x / 2 + 0.5).clamp(0, 1)})


def xl():
    """Two text encoders side by side, size and crop of the picture; guidance 5 against zeros and a negative prompt."""
    folder = fresh("stable_diffusion_xl")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    text = dict(vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    one = randomise(CLIPTextModel(CLIPTextConfig(hidden_size=8, intermediate_size=16, projection_dim=8, **text)), 9)
    two = randomise(CLIPTextModelWithProjection(CLIPTextConfig(
        hidden_size=12, intermediate_size=24, projection_dim=10, hidden_act="gelu", **text)), 10)
    net = randomise(UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=(2, 4), cross_attention_dim=20, use_linear_projection=True,
        transformer_layers_per_block=(1, 1), addition_embed_type="text_time", addition_time_embed_dim=6,
        projection_class_embeddings_input_dim=46), 11)
    pipe = StableDiffusionXLPipeline(vae(12, 4), one, two, tokenizer, tokenizer, net,
                                     EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012,
                                                            beta_schedule="scaled_linear",
                                                            timestep_spacing="leading", steps_offset=1),
                                     add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "pipeline")
    shutil.rmtree(folder / "pipeline/tokenizer")
    shutil.rmtree(folder / "pipeline/tokenizer_2")
    _, latents = start((2, 4, 8, 8), 13)
    tensors = {"latents": latents}
    for name, negative in ("zeros", None), ("negative", ["a cat", "a dog"]):
        tensors[name] = channels_first(pipe(PROMPTS, negative_prompt=negative, num_inference_steps=3, guidance_scale=5,
                                            latents=latents.clone(), output_type="np").images)
    write(folder, xl.__doc__, tensors)


def philox(seed, sequence, step, count):
    """Gatun's normals: Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller."""
    quads = np.arange((count + 3) // 4, dtype=np.uint64)
    low, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    x = [quads & mask, quads >> low, np.full_like(quads, step), np.full_like(quads, sequence)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [(b >> low) ^ x[1] ^ np.uint64(k0), b & mask, (a >> low) ^ x[3] ^ np.uint64(k1), a & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    u = [((v >> np.uint64(8)).astype(np.float64) + 1) * 2.0 ** -24 for v in x]
    pairs = [(np.sqrt(-2 * np.log(u[i])), 2 * np.pi * u[i + 1]) for i in (0, 2)]
    normals = np.stack([f(angle) * radius for radius, angle in pairs for f in (np.cos, np.sin)], 1)
    return torch.tensor(normals.reshape(-1)[:count])


def image_to_image():
    """A picture (8 bits), encoded, with noise of strength 0.5, drawn anew: the directory of stable_diffusion, DDIM, 6
    steps of which 3 are made, seed 21; all noise is Gatun's own."""
    folder = fresh("image_to_image")
    net = StableDiffusionPipeline.from_pretrained(HERE / "stable_diffusion/pipeline", safety_checker=None)
    net.set_progress_bar_config(disable=True)
    scheduler = DDIMScheduler.from_config(net.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    torch.manual_seed(14)
    picture = torch.randint(0, 256, (1, 3, 16, 16)).float()
    with torch.no_grad():
        states, empty = net.encode_prompt(PROMPTS[0], "cpu", 1, True)
        posterior = net.vae.encode(picture / 127.5 - 1).latent_dist
        shape = posterior.mean.shape
        drawn = philox(21, 0, 0x80000001, posterior.mean.numel()).reshape(shape).float()
        latents = (posterior.mean + posterior.std * drawn) * net.vae.config.scaling_factor
        scheduler.set_timesteps(6)
        timesteps = scheduler.timesteps[3:]
        x = scheduler.add_noise(latents, philox(21, 0, 0, latents.numel()).reshape(shape).float(), timesteps[:1])
        for t in timesteps:
            u, c = net.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([empty, states])).sample.chunk(2)
            x = scheduler.step(u + 7.5 * (c - u), t, x).prev_sample
        image = (net.vae.decode(x / net.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    write(folder, image_to_image.__doc__, {"picture": picture, "ddim": image, "encoded": latents})


if __name__ == "__main__":
    for case in dit, ldm, classes, xl, image_to_image:
        case()
