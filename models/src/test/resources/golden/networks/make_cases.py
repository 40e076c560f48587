"""Writes the cases of this folder: tiny networks of transformers, diffusers and torch with random weights, inputs, outputs.

    python make_cases.py    needs torch, transformers, diffusers, safetensors

The reference is float64 arithmetic on the float32 weights.
"""
import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
HINT = {"kind": "max_abs relative to max(1,|value|)", "fp32_hint": 2e-5}


def randomise(model, seed):
    """Norm weights near 1, biases that show, the rest as large as keeps signals alive."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if p.ndim == 1:
                p.copy_((1 if name.endswith("weight") else 0) + 0.1 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
    for name, b in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            b.copy_(0.2 * torch.randn_like(b) if name.endswith("mean") else 0.5 + torch.rand_like(b))
    return model.eval()


def write(name, what, tensors):
    folder = HERE / name
    save_file({k: v.detach().contiguous().to(torch.float32 if v.is_floating_point() else torch.int64)
               for k, v in tensors.items()}, folder / "io.safetensors")
    (folder / "case.json").write_text(json.dumps({"case": f"networks/{name}", "what": what, "tolerance": HINT}, indent=1))


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    return folder / "model"


def clip():
    """gelu, a projection, and the old rule for the pooled state: eos_token_id 2 means the largest id."""
    model = fresh("clip_projection")
    config = CLIPTextConfig(vocab_size=60, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                            num_attention_heads=3, max_position_embeddings=9, hidden_act="gelu", projection_dim=10,
                            bos_token_id=0, eos_token_id=2, pad_token_id=1)
    net = randomise(CLIPTextModelWithProjection(config), 1)
    net.save_pretrained(model)
    ids = torch.tensor([[0, 2, 7, 59, 2, 1, 1], [0, 44, 44, 2, 3, 4, 5]])
    out = net.double()(ids, output_hidden_states=True)
    pooled = out.last_hidden_state[[0, 1], [3, 1]]
    torch.testing.assert_close(net.text_projection(pooled), out.text_embeds)
    write("clip_projection", clip.__doc__, {"ids": ids, "last_hidden_state": out.last_hidden_state,
          "hidden_penultimate": out.hidden_states[-2], "pooler_output": pooled, "text_embeds": out.text_embeds})


def vae_tiling():
    """Tiles of 8 latents on sizes that are no multiples; no quant convolutions, no attention, a shift."""
    model = fresh("vae_tiling")
    net = randomise(AutoencoderKL(
        block_out_channels=(8, 12), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, layers_per_block=1, latent_channels=4, sample_size=16, use_quant_conv=False,
        use_post_quant_conv=False, mid_block_add_attention=False, scaling_factor=0.3611, shift_factor=0.1159), 2)
    net.save_pretrained(model)
    net = net.double()
    torch.manual_seed(3)
    z = torch.randn(2, 4, 13, 9).double()
    image = torch.rand(1, 3, 38, 22).double() * 2 - 1
    tensors = {"z": z, "image": image, "latents": (z - 0.1159) * 0.3611, "decoded": net.decode(z).sample}
    net.enable_tiling()
    tensors["decoded_tiled"] = net.decode(z).sample
    tensors["moments_tiled"] = net.encode(image).latent_dist.parameters
    write("vae_tiling", vae_tiling.__doc__, tensors)


def vq_lookup():
    """Decoding from ids; codes wider than the latents; two levels."""
    model = fresh("vq_lookup")
    net = randomise(VQModel(
        block_out_channels=(8, 12), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, layers_per_block=1, latent_channels=3, num_vq_embeddings=17, vq_embed_dim=5,
        lookup_from_codebook=True), 4)
    net.save_pretrained(model)
    net = net.double()
    torch.manual_seed(5)
    ids = torch.randint(0, 17, (2, 3, 5))
    decoded = net.decode(ids, force_not_quantize=True, shape=(2, 3, 5, 5)).sample
    write("vq_lookup", vq_lookup.__doc__, {"indices": ids, "decoded": decoded})


def dcgan():
    """Three levels, three channels, in the format of models/README.md."""
    model = fresh("dcgan")
    layers, into = [], 7
    for i, out in enumerate((12, 8, 6)):
        layers += [torch.nn.ConvTranspose2d(into, out, 4, 2 if i else 1, 1 if i else 0, bias=False),
                   torch.nn.BatchNorm2d(out), torch.nn.ReLU()]
        into = out
    net = randomise(torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(into, 3, 4, 2, 1, bias=False), torch.nn.Tanh()), 6)
    save_file({"generator." + k: v for k, v in net.state_dict().items()}, model / "model.safetensors", {"format": "pt"})
    (model / "config.json").write_text(json.dumps({"model_type": "gatun_dcgan", "latent_size": 7, "channels": [12, 8, 6],
                                                   "image_channels": 3, "image_size": 32}, indent=1))
    torch.manual_seed(7)
    z = torch.randn(3, 7).double()
    write("dcgan", dcgan.__doc__, {"z": z, "image": net.double()(z[:, :, None, None])})


def vae_decoders():
    """The decoders of an MLP and of a convolutional VAE, beside their encoders, in the format of models/README.md."""
    parts = {"enc": torch.nn.Linear(50, 9), "mu": torch.nn.Linear(9, 4), "logvar": torch.nn.Linear(9, 4),
             "dec1": torch.nn.Linear(4, 9), "dec2": torch.nn.Linear(9, 50)}
    mlp = randomise(torch.nn.ModuleDict(parts), 8)
    model = fresh("vae_mlp")
    save_file(mlp.state_dict(), model / "model.safetensors", {"format": "pt"})
    (model / "config.json").write_text(json.dumps({
        "model_type": "gatun_vae", "decoder": "mlp", "latent_size": 4, "widths": [9], "image_channels": 2, "image_size": 5,
        "activation": "relu"}, indent=1))
    torch.manual_seed(9)
    z = torch.randn(3, 4).double()
    mlp = mlp.double()
    image = torch.sigmoid(mlp["dec2"](torch.relu(mlp["dec1"](z)))).view(3, 2, 5, 5)
    write("vae_mlp", vae_decoders.__doc__, {"z": z, "image": image})

    conv = randomise(torch.nn.ModuleDict({
        "conv1": torch.nn.Conv2d(1, 6, 3, 2, 1), "mu": torch.nn.Linear(24, 5), "fc": torch.nn.Linear(5, 12 * 9),
        "deconv1": torch.nn.ConvTranspose2d(12, 6, 4, 2, 1), "deconv2": torch.nn.ConvTranspose2d(6, 1, 4, 2, 1)}), 10)
    model = fresh("vae_conv")
    save_file(conv.state_dict(), model / "model.safetensors", {"format": "pt"})
    (model / "config.json").write_text(json.dumps({
        "model_type": "gatun_vae", "decoder": "conv", "latent_size": 5, "widths": [12, 6], "image_channels": 1,
        "image_size": 12, "activation": "silu"}, indent=1))
    z = torch.randn(2, 5).double()
    conv, silu = conv.double(), torch.nn.functional.silu
    h = silu(conv["fc"](z)).view(2, 12, 3, 3)
    write("vae_conv", vae_decoders.__doc__, {"z": z, "image": torch.sigmoid(conv["deconv2"](silu(conv["deconv1"](h))))})


with torch.no_grad():
    for case in (clip, vae_tiling, vq_lookup, dcgan, vae_decoders):
        case()
