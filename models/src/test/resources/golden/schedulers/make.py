#!/usr/bin/env python3
"""Records scheduler trajectories of diffusers: the cases from 49 on.

    python make.py [NAME]...        writes the folders beside this file; needs torch, diffusers and safetensors

A case is 16 elements [1, 1, 4, 4] from linspace(-1, 1) times init_noise_sigma, and the model tanh(0.3 x) + 1e-4 t on
the scaled sample. Noise comes from one generator and is recorded in the order in which the scheduler draws it. A model with
a learned variance gives a second channel, and its outputs are recorded.
"""
import json
import pathlib
import sys

import diffusers
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

# name -> scheduler class, its fields, and what else the run has
CASES = {
    "49_DDPM": ("DDPMScheduler", {}, {}),
    "50_DDPM_fixed_small_log": ("DDPMScheduler", dict(variance_type="fixed_small_log"), {}),
    "51_DDPM_fixed_large": ("DDPMScheduler", dict(variance_type="fixed_large", clip_sample_range=2.0), {}),
    "52_DDPM_learned": ("DDPMScheduler", dict(variance_type="learned"), dict(output_channels=2)),
    "53_DDPM_learned_range": ("DDPMScheduler", dict(variance_type="learned_range", clip_sample=False),
                              dict(output_channels=2)),
    "54_DDPM_v_trailing": ("DDPMScheduler", dict(SD, prediction_type="v_prediction", timestep_spacing="trailing",
                                                 rescale_betas_zero_snr=True), {}),
    "55_DDPM_cosine_threshold": ("DDPMScheduler", dict(beta_schedule="squaredcos_cap_v2", thresholding=True,
                                                       dynamic_thresholding_ratio=0.8, sample_max_value=3.0), {}),
    "56_DDPM_sample_offset": ("DDPMScheduler", dict(prediction_type="sample", steps_offset=1), dict(steps=7)),
    "57_DDIM_eta1": ("DDIMScheduler", dict(SD, clip_sample=False, steps_offset=1, set_alpha_to_one=False),
                     dict(eta=1.0)),
    "58_DDIM_eta_half_7": ("DDIMScheduler", {}, dict(eta=0.5, steps=7)),
    "59_EulerAncestral": ("EulerAncestralDiscreteScheduler", SD, {}),
    "60_EulerAncestral_v": ("EulerAncestralDiscreteScheduler", dict(SD, prediction_type="v_prediction",
                            timestep_spacing="trailing", rescale_betas_zero_snr=True), {}),
    "61_LCM": ("LCMScheduler", {}, dict(steps=4)),
    "62_LCM_clip": ("LCMScheduler", dict(clip_sample=True, original_inference_steps=30), dict(steps=7)),
    "63_KDPM2Ancestral": ("KDPM2AncestralDiscreteScheduler", SD, {}),
    "64_KDPM2Ancestral_karras": ("KDPM2AncestralDiscreteScheduler", dict(SD, use_karras_sigmas=True), {}),
    "65_DPM_sde": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver++"), {}),
    "66_DPM_sde_heun_karras": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver++",
                               solver_type="heun", use_karras_sigmas=True), {}),
    "67_DPM_sde_3": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver++", solver_order=3), {}),
    "68_DPM_sde_noise": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver",
                         final_sigmas_type="sigma_min"), {}),
    "69_DPM_noise_3": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="dpmsolver", solver_order=3,
                       final_sigmas_type="sigma_min", thresholding=True, sample_max_value=2.0), {}),
    "70_DPM_noise_heun_v": ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="dpmsolver", solver_type="heun",
                            final_sigmas_type="sigma_min", prediction_type="v_prediction"), {}),
    "71_DPM_threshold_zsnr": ("DPMSolverMultistepScheduler", dict(SD, thresholding=True, sample_max_value=1.5,
                              prediction_type="v_prediction", rescale_betas_zero_snr=True), {}),
    "72_DPM_long": ("DPMSolverMultistepScheduler", dict(SD, solver_order=3, final_sigmas_type="sigma_min"),
                    dict(steps=17)),
    "73_DPM_clipped_cosine": ("DPMSolverMultistepScheduler", dict(beta_schedule="squaredcos_cap_v2",
                              lambda_min_clipped=-5.1, use_karras_sigmas=False), {}),
    "74_DPM_exponential": ("DPMSolverMultistepScheduler", dict(SD, use_exponential_sigmas=True), {}),
    "75_DPM_beta": ("DPMSolverMultistepScheduler", dict(SD, use_beta_sigmas=True, lower_order_final=False), {}),
    "76_DPM_flow": ("DPMSolverMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=3.0,
                    prediction_type="flow_prediction"), {}),
    "77_UniPC_bh1_3": ("UniPCMultistepScheduler", dict(SD, solver_type="bh1", solver_order=3,
                       final_sigmas_type="sigma_min"), {}),
    "78_UniPC_noise": ("UniPCMultistepScheduler", dict(SD, predict_x0=False, final_sigmas_type="sigma_min"), {}),
    "79_UniPC_3_partly_corrected": ("UniPCMultistepScheduler", dict(SD, solver_order=3, disable_corrector=[0, 1],
                                    thresholding=True, sample_max_value=2.0, use_karras_sigmas=True), {}),
    "80_UniPC_flow": ("UniPCMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=3.0,
                      prediction_type="flow_prediction"), {}),
    "81_UniPC_4_long": ("UniPCMultistepScheduler", dict(SD, solver_order=4, timestep_spacing="trailing"),
                        dict(steps=16)),
    "82_DEIS_3": ("DEISMultistepScheduler", dict(SD, solver_order=3, use_karras_sigmas=True), {}),
    "83_DEIS_v_threshold": ("DEISMultistepScheduler", dict(SD, prediction_type="v_prediction", thresholding=True), {}),
    "84_LMS_karras": ("LMSDiscreteScheduler", dict(SD, use_karras_sigmas=True, timestep_spacing="leading",
                      steps_offset=1), {}),
    "85_Heun_clip_karras": ("HeunDiscreteScheduler", dict(SD, clip_sample=True, clip_sample_range=1.5,
                            use_karras_sigmas=True), {}),
    "86_KDPM2_exponential_v": ("KDPM2DiscreteScheduler", dict(SD, use_exponential_sigmas=True,
                               prediction_type="v_prediction"), {}),
    "87_PNDM_prk": ("PNDMScheduler", dict(SD, timestep_spacing="leading"), {}),
    "88_PNDM_prk_v": ("PNDMScheduler", dict(SD, prediction_type="v_prediction", timestep_spacing="trailing",
                      set_alpha_to_one=True), dict(steps=9)),
    "89_PNDM_v": ("PNDMScheduler", dict(SD, skip_prk_steps=True, prediction_type="v_prediction",
                  timestep_spacing="linspace"), {}),
    "90_FlowMatchEuler_stochastic": ("FlowMatchEulerDiscreteScheduler", dict(shift=3.0, stochastic_sampling=True), {}),
    "91_FlowMatchEuler_dynamic": ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True,
                                  shift_terminal=0.1), dict(mu=1.15)),
    "92_FlowMatchEuler_beta": ("FlowMatchEulerDiscreteScheduler", dict(shift=2.0, use_beta_sigmas=True,
                               invert_sigmas=False), {}),
    "93_Euler_strength": ("EulerDiscreteScheduler", SD, dict(strength=0.6)),
    "94_DPM_strength": ("DPMSolverMultistepScheduler", dict(SD, solver_order=3), dict(strength=0.75)),
    "95_UniPC_strength": ("UniPCMultistepScheduler", dict(SD, solver_order=3), dict(strength=0.5)),
    "96_Heun_strength": ("HeunDiscreteScheduler", SD, dict(strength=0.5)),
    "97_Euler_log_linear": ("EulerDiscreteScheduler", dict(SD, interpolation_type="log_linear"), {}),
    "98_DDIM_strength": ("DDIMScheduler", dict(SD, clip_sample=False, steps_offset=1), dict(strength=0.45, eta=0.3)),
    "99_Euler_continuous": ("EulerDiscreteScheduler", dict(SD, prediction_type="v_prediction", use_karras_sigmas=True,
                            timestep_type="continuous", sigma_min=0.002, sigma_max=700.0), {}),
    "100_EDMEuler": ("EDMEulerScheduler", {}, {}),
    "101_EDMEuler_v_exponential": ("EDMEulerScheduler", dict(prediction_type="v_prediction", sigma_data=1.0,
                                   sigma_schedule="exponential", final_sigmas_type="sigma_min", sigma_max=120.0), {}),
    "102_EDMEuler_rho_strength": ("EDMEulerScheduler", dict(rho=3.0, sigma_min=0.01, sigma_max=20.0, sigma_data=0.3),
                                  dict(steps=9, strength=0.6)),
}


def model(x, t, channels):
    epsilon = torch.tanh(0.3 * x) + 0.0001 * float(t)
    if channels == 1:
        return epsilon
    variance = 0.5 * torch.sin(3 * x) ** 2 + 0.1  # within (0, 1): a variance, and a place in a range
    return torch.cat([epsilon, variance], dim=1)


def record(name, class_name, fields, run):
    scheduler = getattr(diffusers, class_name)(**fields)
    steps = run.get("steps", 10)
    if "mu" in run:
        scheduler.set_timesteps(steps, mu=run["mu"])
    else:
        scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if "strength" in run:
        first = steps - min(int(steps * run["strength"]), steps)
        timesteps = timesteps[first * scheduler.order:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * scheduler.order)

    generator = torch.Generator().manual_seed(17)
    drawn = []

    def randn(shape, **_):
        # a scheduler asks for the shape of the model's output; the variance has no noise of its own
        drawn.append(torch.randn((1, 1, 4, 4), generator=generator))
        return drawn[-1]

    sys.modules[type(scheduler).__module__].randn_tensor = randn
    init = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    deviation = float(getattr(scheduler, "init_noise_sigma", 1))
    x = init * deviation
    inputs, outputs, samples = [], [], []
    more = dict(eta=run["eta"]) if "eta" in run else {}
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = model(scaled, t, run.get("output_channels", 1))
        x = scheduler.step(output, t, x, return_dict=False, **more)[0]
        inputs.append(scaled), outputs.append(output), samples.append(x)
    assert torch.isfinite(torch.stack(samples)).all(), name

    folder = HERE / name
    scheduler.save_config(folder / "model")
    tensors = {
        "init": init, "timesteps": torch.tensor([float(t) for t in timesteps]),
        "samples": torch.stack(samples).reshape(len(samples), -1),
        "model_inputs": torch.stack(inputs).reshape(len(inputs), -1),
        "model_outputs": torch.stack(outputs).reshape(len(outputs), -1),
    }
    if drawn:
        tensors["noise"] = torch.stack(drawn).reshape(len(drawn), -1)
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, folder / "io.safetensors")
    about = {
        "case": f"schedulers/{name}", "what": f"{class_name} {steps} steps, recorded by make.py",
        "scheduler_class": class_name, "num_inference_steps": steps, "call_count": len(samples),
        "init_noise_sigma": deviation, "config": {k: v for k, v in fields.items()},
        "noise": len(drawn), **{k: v for k, v in run.items() if k != "steps"},
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        record(case, *CASES[case])
        print(case)
