"""Writes the cases of this folder: tiny U-Nets of diffusers with random weights, inputs and outputs.

    python make_cases.py    needs torch, diffusers, safetensors

The reference is float64 arithmetic on the float32 weights; the sinusoids of a time step are the float32 ones that
diffusers builds. `torch_bf16` is how far diffusers in bfloat16 is off.
"""
import json
import pathlib
import shutil

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent

COND = dict(sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
            layers_per_block=1, cross_attention_dim=12, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
PLAIN = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=4,
             layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))

CASES = {
    # SDXL: pooled text and sizes, heads and transformer blocks per level, linear projections
    "sdxl": (UNet2DConditionModel, dict(
        COND, block_out_channels=(8, 12), attention_head_dim=(1, 2), transformer_layers_per_block=(1, 2),
        use_linear_projection=True, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=10 + 6 * 6),
        dict(text_embeds=(2, 10), time_ids=[[512, 512, 0, 0, 512, 512], [768, 640, 3, 5, 1024, 1024]])),
    # Stable Diffusion 2: heads per level, linear projections
    "sd2": (UNet2DConditionModel, dict(
        COND, block_out_channels=(8, 12), attention_head_dim=(2, 4), use_linear_projection=True, upcast_attention=True,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")), {}),
    # class labels, one head
    "classes": (UNet2DModel, dict(PLAIN, num_class_embeds=5, attention_head_dim=None), dict(class_labels=[4, 1])),
    # the time scales and shifts, residual blocks halve and double, no norm in the middle, heads of 4
    "scale_shift": (UNet2DModel, dict(
        PLAIN, resnet_time_scale_shift="scale_shift", attention_head_dim=4, downsample_type="resnet",
        upsample_type="resnet", down_block_types=("AttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_scale_factor=1.5, center_input_sample=True,
        flip_sin_to_cos=False, freq_shift=1), {}),
    # heights and widths that do not halve evenly; labels embedded as time steps; 1x1 kernels at both ends
    "odd_sizes": (UNet2DConditionModel, dict(
        COND, block_out_channels=(8, 8, 16), attention_head_dim=2, class_embed_type="timestep",
        only_cross_attention=(True, False, False), conv_in_kernel=1, conv_out_kernel=5,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")),
        dict(sample=(2, 4, 13, 11), class_labels=[3, 700])),
    # a distilled network's guidance, projected labels, layers per level, no attention in the middle
    "guidance": (UNet2DConditionModel, dict(
        COND, attention_head_dim=2, time_cond_proj_dim=6, class_embed_type="projection",
        projection_class_embeddings_input_dim=7, mid_block_type="UNetMidBlock2D", layers_per_block=(2, 1),
        transformer_layers_per_block=((1, 2), 1), reverse_transformer_layers_per_block=(1, (1, 2, 1))),
        dict(timestep_cond=(2, 6), class_labels=(2, 7))),
    # attention among the pixels, nothing in the middle, labels projected once
    "no_mid": (UNet2DConditionModel, dict(
        COND, attention_head_dim=(2, 4), mid_block_type=None, class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=7, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        dict(class_labels=(2, 7))),
}


def randomise(model, generator):
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        p.data = 1 + 0.2 * noise if norm else 0.1 * noise if p.ndim == 1 else noise / p[0].numel() ** 0.5


def main():
    for index, (name, (cls, config, inputs)) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(100 + index)
        model = cls(**config).eval()
        randomise(model, generator)
        sample_shape = inputs.get("sample", (2, model.config.in_channels, 8, 6))
        io = {"sample": torch.randn(sample_shape, generator=generator),
              "timesteps": torch.tensor([17, 951])}
        if cls is UNet2DConditionModel:
            io["encoder_hidden_states"] = torch.randn((2, 5, 12), generator=generator)
        for key, value in inputs.items():
            if key != "sample":
                io[key] = torch.tensor(value) if isinstance(value, list) else torch.randn(value, generator=generator)
        outs = {}
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            outs[dtype] = run(cls, model, io, dtype).double()
        want = outs[torch.float64]
        io["sample_out"] = want.float()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        model.float().save_pretrained(folder / "model")
        save_file({k: v.contiguous() for k, v in io.items()}, folder / "io.safetensors")
        errors = {d: float((outs[d] - want).abs().max()) for d in outs}
        case = {"case": "unet/" + name, "tolerance": {"fp32_hint": max(2e-5, 10 * errors[torch.float32]),
                "torch_f32": errors[torch.float32], "torch_bf16": errors[torch.bfloat16]},
                "params": sum(p.numel() for p in model.parameters())}
        (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
        print(name, case["params"], case["tolerance"], float(want.abs().max()))


def run(cls, model, io, dtype):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.to(dtype)
    known = {k: v.to(dtype) if v.is_floating_point() else v for k, v in io.items()}
    extra = {k: known[k] for k in ("class_labels", "timestep_cond") if k in known}
    if "text_embeds" in known:
        extra["added_cond_kwargs"] = {"text_embeds": known["text_embeds"], "time_ids": io["time_ids"]}
    positional = [known["encoder_hidden_states"]] if "encoder_hidden_states" in known else []
    with torch.no_grad():
        out = model(known["sample"], known["timesteps"], *positional, **extra).sample
    model.float()
    model.load_state_dict(state)
    return out


if __name__ == "__main__":
    main()
