"""What a PyTorch user would call in place of each of our kernels, and how long that takes on the device.

A case comes with the names, dtypes and shapes of our operands; FORMS has one function per op that returns the variants.
On a GPU triton_kernels may add one, and the calls of a repeat are one CUDA graph over all copies of the operands, like
ours.
"""
import itertools
import re
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

try:
    import triton_kernels
except ImportError:
    triton_kernels = None

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i32": torch.int32, "i64": torch.int64,
          "u8": torch.uint8, "f8_e4m3": getattr(torch, "float8_e4m3fn", None)}
MAX_CALLS = 64  # in a graph
ALLOWED_ERROR = 0.02  # of what Triton computes, against torch
EPS = 1e-5
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}


def timed(device, call, calls):
    """Seconds of one of `calls` calls on the device; one more before them keeps it busy while they are queued."""
    call()
    if device.type == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / calls


class Case:
    """One of our cases: sizes by name, and as many sets of operands as we have."""

    def __init__(self, device, op, dtype, sizes, operands, copies):
        self.op, self.dtype, self.sizes, self.operands = op, DTYPES[dtype], sizes, operands
        self.device = device
        self.sets = [self.operand_set() for _ in range(copies)]

    def size(self, name):
        return int(re.search(rf"\b{name}=(\d+)", self.sizes).group(1))

    def operand_set(self):
        return {name: self.operand(name) for name in self.operands if name not in ("k_pages", "v_pages")}

    def operand(self, name):
        dtype, shape = DTYPES[self.operands[name]["dtype"]], self.operands[name]["shape"]
        if dtype == DTYPES["f8_e4m3"]:
            return self.random(*shape, dtype=torch.bfloat16).to(dtype)
        if dtype.is_floating_point:
            return self.random(*shape, dtype=dtype)
        # ids and positions are rows of tables, targets columns of logits
        limits = [("ids", "table", 0), ("ids", "dtable", 0), ("positions", "position_table", 0),
                  ("targets", "logits", 1)]
        sizes = [self.operands[of]["shape"][dimension] for index, of, dimension in limits
                 if index == name and of in self.operands]
        return torch.randint(sizes[0] if sizes else 1, shape, dtype=dtype, device=self.device)

    def random(self, *shape, dtype=None):
        return torch.randn(*shape, dtype=dtype or self.dtype, device=self.device)


def plain(function):
    return lambda case: {"eager": function}


def fused(function):
    """Several kernels in eager mode, one where the compiler is asked."""
    return lambda case: {"eager": function, "compiled": torch.compile(function, dynamic=False)}


def layer_norm(t):
    h = t["x"] + t["residual"] if "residual" in t else t["x"]
    y = F.layer_norm(h, h.shape[-1:], t.get("weight"), t.get("bias"), EPS)
    return (y, h) if "residual" in t else y


def rms_norm(t):
    h = t["x"] + t["residual"] if "residual" in t else t["x"]
    y = F.rms_norm(h, h.shape[-1:], t.get("weight"), EPS)
    return (y, h) if "residual" in t else y


def layer_norm_backward(t):
    """torch keeps the statistics in x's dtype on the CPU, in f32 on a GPU."""
    kept = t["x"].dtype if t["x"].device.type == "cpu" else torch.float32
    mean, rstd = t["mean"].view(-1, 1).to(kept), t["rstd"].view(-1, 1).to(kept)
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        t["dy"], t["x"], t["x"].shape[-1:], mean, rstd, t["weight"], torch.zeros_like(t["weight"]), (True, True, True))
    return dx + t["residual"] if "residual" in t else dx, dweight, dbias


def rms_norm_backward(t):
    dx, dweight = torch.ops.aten._fused_rms_norm_backward(
        t["dy"], t["x"], t["x"].shape[-1:], t["rstd"].view(-1, 1), t["weight"], (True, True))
    return dx + t["residual"] if "residual" in t else dx, dweight


def as_image(t):
    """[B, S, C] as torch's [B, C, S, 1], channels last."""
    return t.transpose(1, 2).unsqueeze(3)


def group_norm_backward(case):
    """With SiLU's derivative, whose argument torch has kept from the forward pass: any image does for it."""
    groups = case.size("groups")

    def backward(t):
        b, s, c = t["x"].shape
        x = as_image(t["x"])
        d = torch.ops.aten.silu_backward(as_image(t["dy"]), x)
        kept = t["x"].dtype if t["x"].device.type == "cpu" else torch.float32
        return torch.ops.aten.native_group_norm_backward(d, x, t["mean"].to(kept), t["rstd"].to(kept), t["weight"], b,
                                                         c, s, groups, (True, True, True))
    return plain(backward)(case)


def batch_norm_train(t):
    return torch.ops.aten.native_batch_norm(as_image(t["x"]), t["weight"], t["bias"], None, None, True, 0.1, EPS)


def batch_norm_backward(t):
    kept = t["x"].dtype if t["x"].device.type == "cpu" else torch.float32
    return torch.ops.aten.native_batch_norm_backward(as_image(t["dy"]), as_image(t["x"]), t["weight"], None, None,
                                                     t["mean"].to(kept), t["rstd"].to(kept), True, EPS,
                                                     (True, True, True))


def group_norm(case):
    """Of tokens [B, S, C], as a U-Net does it with SiLU."""
    groups = case.size("G")

    def norm_and_silu(t):
        return F.silu(F.group_norm(t["x"].transpose(1, 2), groups, t.get("weight"), t.get("bias"), EPS))
    return fused(norm_and_silu)(case)


def softmax(function):
    return fused(lambda t: function(t["x"], -1, dtype=t["y"].dtype))


def cross_entropy(t):
    """As autograd does it, forward and backward."""
    aten, targets = torch.ops.aten, t["targets"].long()
    log_p = torch.log_softmax(t["logits"], -1)
    loss, weight = aten.nll_loss_forward(log_p, targets, None, 1, -100)
    dlog_p = aten.nll_loss_backward(torch.ones_like(loss), log_p, targets, None, 1, -100, weight)
    return loss, aten._log_softmax_backward_data(dlog_p, log_p, -1, log_p.dtype)


def embed_backward(t):
    return torch.ops.aten.embedding_dense_backward(t["dy"], t["ids"], t["dtable"].shape[0], -1, False)


def embed(t):
    y = F.embedding(t["ids"], t["table"])
    return y + F.embedding(t["positions"], t["position_table"]) if "positions" in t else y


def rope(t):
    """As transformers does it, with the two halves of a head as pairs."""
    cos, sin = (torch.cat([half, half], -1)[:, None] for half in t["table"][t["positions"].long()].unbind(1))
    x = t["x"].float()
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(t["x"].dtype)


def rope_backward(t):
    cos, sin = (torch.cat([half, half], -1)[:, None] for half in t["table"][t["positions"].long()].unbind(1))
    dy = t["dy"].float()
    a, b = dy.chunk(2, -1)
    return (dy * cos + torch.cat([b, -a], -1) * sin).to(t["dy"].dtype)


def rope_table(case):
    positions = torch.arange(case.size("M"), device=case.device, dtype=torch.float32)

    def table(t):
        angles = torch.outer(positions, t["inv_freq"])
        return torch.stack([angles.cos(), angles.sin()], 1)
    return fused(table)(case)


def product(case):
    y_type = DTYPES[case.operands["y"]["dtype"]]

    def multiply(t):
        if "OUT_IN" in case.sizes:
            y = F.linear(t["x"], t["weight"], t.get("bias"))
        else:
            y = torch.addmm(t["bias"], t["x"], t["weight"]) if "bias" in t else t["x"] @ t["weight"]
        return y.to(y_type)
    return {"eager": multiply}


def product_fp8(case):
    """With a scale per row of x and per row of weight; with fast accumulation only where it is named."""
    y_type = DTYPES[case.operands["y"]["dtype"]]

    def by(fast):
        return lambda t: torch._scaled_mm(t["x"], t["weight"].T, scale_a=t["x_scale"][:, None],
                                          scale_b=t["weight_scale"][None], bias=t.get("bias"), out_dtype=y_type,
                                          use_fast_accum=fast)
    return {"eager": by(False), "fast accumulation": by(True)}


def convolution(case):
    """Channels last, as torch calls our layout; only pads that are the same on both sides."""
    stride, pad = (tuple(map(int, re.search(pattern, case.sizes).groups()))
                   for pattern in (r"stride=(\d+)x(\d+)", r"pads=(\d+),(\d+)"))
    function = F.conv_transpose2d if case.op == "conv_transpose2d" else F.conv2d

    def convolve(t):
        return function(t["x"].permute(0, 3, 1, 2), t["weight"].permute(0, 3, 1, 2), t.get("bias"), stride, pad)
    return {"eager": convolve}


def convolution_gradient(case):
    """As above; of the input or of the weight, which torch rounds to its dtype."""
    stride, pad = (list(map(int, re.search(pattern, case.sizes).groups()))
                   for pattern in (r"stride=(\d+)x(\d+)", r"pads=(\d+),(\d+)"))
    of_weight = case.op.endswith("weight")

    def differentiate(t):
        dy = t["dy"].permute(0, 3, 1, 2)
        x = t["x" if of_weight else "dx"].permute(0, 3, 1, 2)
        weight = t["dweight"].to(dy.dtype) if of_weight else t["weight"]
        return torch.ops.aten.convolution_backward(dy, x, weight.permute(0, 3, 1, 2), None, stride, pad, [1, 1], False,
                                                   [0, 0], 1, [not of_weight, of_weight, False])
    return {"eager": differentiate}


def attend(case, causal, mask=None):
    """The attention backends by name; the operands are `q`, `k` and `v` as [B, heads, rows, D]."""
    def by(backend):
        def attention(t):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(t["q"], t["k"], t["v"], mask, is_causal=causal,
                                                      enable_gqa=t["q"].shape[1] != t["k"].shape[1])
        return attention
    backends = BACKENDS if case.device.type == "cuda" else {"eager": [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]}
    return {name: by(backend) for name, backend in backends.items()}


def attention(case):
    for t in case.sets:
        t.update({name: t[name].transpose(1, 2) for name in "qkv"})
    return attend(case, "CAUSAL" in case.sizes)


def attention_backward(case):
    """By autograd, whose backends keep more than y and lse: of each set what a forward pass saved."""
    for t in case.sets:
        t["leaves"] = [t[name].transpose(1, 2).detach().requires_grad_() for name in "qkv"]

    def by(forward, deterministic):
        def differentiate(t):
            if forward not in t:
                with torch.enable_grad():
                    t[forward] = forward({name: leaf for name, leaf in zip("qkv", t["leaves"])})
            torch.use_deterministic_algorithms(deterministic)
            try:
                return torch.autograd.grad(t[forward], t["leaves"], t["dy"].transpose(1, 2), retain_graph=True)
            finally:
                torch.use_deterministic_algorithms(False)
        return differentiate
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would be part of what is measured
    forwards = attend(case, "CAUSAL" in case.sizes)
    variants = {name: by(forward, False) for name, forward in forwards.items()}
    for name in ("flash", "cudnn"):
        if name in forwards:
            variants[name + ", deterministic"] = by(forwards[name], True)
    return variants


def attention_paged(case):
    """Keys and values without pages: torch has none. `is_causal` would let the first row see the first key alone."""
    b, rows, cached = case.size("B"), case.size("T"), case.size("cached")
    for t in case.sets:
        t["q"] = case.random(b, case.size("H"), rows, case.size("D"))
        t["k"], t["v"] = (case.random(b, case.size("G"), cached + rows, case.size("D")) for _ in "kv")
    if rows > 1 and cached > 0:
        return attend(case, False, causal_lower_right(rows, cached + rows))
    return attend(case, rows > 1)


def kv_append(case):
    """Into a cache without pages, as transformers' StaticCache does."""
    b, rows, cached = case.size("B"), case.size("T"), case.size("cached")
    places = torch.arange(cached, cached + rows, device=case.device)
    for t in case.sets:
        for name in "kv":
            t[name] = case.random(b, case.size("G"), rows, case.size("D"))
            t[name + "_cache"] = case.random(b, case.size("G"), cached + rows, case.size("D"))

    def append(t):
        return [t[name + "_cache"].index_copy_(2, places, t[name]) for name in "kv"]
    return {"eager": append}


def diffusion_step(case):
    """DDIM with guidance, of a network that predicts noise, as diffusers' pipelines and scheduler write it."""
    alpha, alpha_before, guidance, eta = 0.6, 0.65, 7.5, 0.0
    variance = (1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)

    def step(t):
        plain, prompted = t["output"].chunk(2)
        noise = plain + guidance * (prompted - plain)
        original = (t["sample"] - (1 - alpha) ** 0.5 * noise) / alpha ** 0.5
        deviation = eta * variance ** 0.5
        direction = (1 - alpha_before - deviation ** 2) ** 0.5 * noise
        return alpha_before ** 0.5 * original + direction
    return fused(step)(case)


def sample(case):
    if "random" in case.sizes:
        return {"eager": lambda t: torch.multinomial(torch.softmax(t["logits"], -1), 1)}
    return {"eager": lambda t: t["logits"].argmax(-1)}


def backward(op, *arguments, of="x"):
    """A derivative of aten's by the incoming gradient and the input, or the result."""
    return plain(lambda t: getattr(torch.ops.aten, op)(t["dy"], t[of], *arguments))


def gelu_backward(approximate):
    return plain(lambda t: torch.ops.aten.gelu_backward(t["dy"], t["x"], approximate=approximate))


def gated_backward(activation, derivative):
    return fused(lambda t: (derivative(t["dy"] * t["up"], t["gate"]), t["dy"] * activation(t["gate"])))


def adamw(case):
    for t in case.sets:
        t["v"].abs_()
        t["step"] = torch.ones((), device=case.device)

    def update(t):
        torch._fused_adamw_([t["param"]], [t["grad"]], [t["m"]], [t["v"]], [], [t["step"]], lr=1e-3, beta1=0.9,
                            beta2=0.999, weight_decay=0.1, eps=1e-8, amsgrad=False, maximize=False)
        return t["low"].copy_(t["param"]) if "low" in t else t["param"]
    return {"eager": update}


def loss(case):
    def squares(t):
        difference = t["x"] - t["target"]
        return difference.square().sum(), 2 * difference

    def logits(t):
        return F.binary_cross_entropy_with_logits(t["x"], t["target"]), torch.sigmoid(t["x"]) - t["target"]
    return fused(squares if "MSE" in case.sizes else logits)(case)


def quantize_rows(t):
    scale = t["x"].float().abs().amax(1, keepdim=True) / 448
    return (t["x"] / scale).to(torch.float8_e4m3fn), scale


FORMS = {
    "gelu_erf_backward": gelu_backward("none"),
    "gelu_tanh_backward": gelu_backward("tanh"),
    "silu_backward": backward("silu_backward"),
    "relu_backward": backward("threshold_backward", 0),
    "leaky_relu_backward": backward("leaky_relu_backward", 0.2, False),
    "tanh_backward": backward("tanh_backward", of="y"),
    "sigmoid_backward": backward("sigmoid_backward", of="y"),
    "swiglu_backward": gated_backward(F.silu, torch.ops.aten.silu_backward),
    "geglu_backward": gated_backward(F.gelu, torch.ops.aten.gelu_backward),
    "dropout": plain(lambda t: F.dropout(t["x"], 0.1)),
    "sum_rows": plain(lambda t: t["a"].sum(1, dtype=torch.float32)),
    "sum": plain(lambda t: t["x"].sum(dtype=torch.float32)),
    "loss": loss,
    "adamw": adamw,
    "gradient_norm": plain(lambda t: torch.linalg.vector_norm(t["grad"])),
    "ema": plain(lambda t: t["average"].lerp_(t["param"], 0.001)),
    "scale": plain(lambda t: t["x"] * 0.3),
    "gelu_erf": plain(lambda t: F.gelu(t["x"])),
    "gelu_tanh": fused(lambda t: F.gelu(t["x"], approximate="tanh")),
    "quick_gelu": fused(lambda t: t["x"] * torch.sigmoid(1.702 * t["x"])),
    "silu": plain(lambda t: F.silu(t["x"])),
    "relu": plain(lambda t: torch.relu(t["x"])),
    "leaky_relu": plain(lambda t: F.leaky_relu(t["x"], 0.2)),
    "tanh": plain(lambda t: torch.tanh(t["x"])),
    "sigmoid": plain(lambda t: torch.sigmoid(t["x"])),
    "add": plain(lambda t: t["a"] + t["b"]),
    "mul": plain(lambda t: t["a"] * t["b"]),
    "swiglu": fused(lambda t: F.silu(t["gate"]) * t["up"]),
    "geglu": fused(lambda t: F.gelu(t["gate"]) * t["up"]),
    "geglu_tanh": fused(lambda t: F.gelu(t["gate"], approximate="tanh") * t["up"]),
    "cast": plain(lambda t: t["x"].to(t["y"].dtype)),
    "fill": plain(lambda t: t["y"].fill_(1)),
    "copy": plain(lambda t: t["y"].copy_(t["x"])),
    "count_nonfinite": fused(lambda t: torch.isfinite(t["x"]).logical_not().sum()),
    "layernorm": fused(layer_norm),
    "rmsnorm": fused(rms_norm),
    "layernorm_backward": fused(layer_norm_backward),
    "rmsnorm_backward": fused(rms_norm_backward),
    "groupnorm": group_norm,
    "groupnorm_backward": group_norm_backward,
    "batchnorm_train": plain(batch_norm_train),
    "batchnorm_backward": plain(batch_norm_backward),
    "softmax": softmax(torch.softmax),
    "log_softmax": softmax(torch.log_softmax),
    "cross_entropy": fused(cross_entropy),
    "embedding": fused(embed),
    "embedding_backward": lambda case: {"eager": embed_backward},
    "rope": fused(rope),
    "rope_backward": fused(rope_backward),
    "rope_table": rope_table,
    "linear": product,
    "matmul": product,
    "matmul_fp8": product_fp8,
    "quantize_rows": fused(quantize_rows),
    "linear_fp8": fused(lambda t: F.linear(t["x"], t["weight"].to(t["x"].dtype)) * t["weight_scale"]),
    "conv2d": convolution,
    "conv_transpose2d": convolution,
    "conv2d_backward_input": convolution_gradient,
    "conv2d_backward_weight": convolution_gradient,
    "matmulOuter": plain(lambda t: t["a"].T @ t["b"]),
    "max_pool": plain(lambda t: F.max_pool2d(t["x"].permute(0, 3, 1, 2), 2)),
    "attention": attention,
    "attention_backward": attention_backward,
    "attention_decode": attention_paged,
    "attention_paged": attention_paged,
    "kv_append": kv_append,
    "diffusion_step": diffusion_step,
    "argmax": plain(lambda t: t["logits"].argmax(-1)),
    "sample": sample,
}


class Kernel:
    """The variants of a case that work here, ready to be repeated."""

    def __init__(self, device, op, dtype, sizes, operands, copies, calls):
        self.device = device
        self.runs, self.skipped = {}, {}
        if op not in FORMS:
            self.skipped["eager"] = "nothing in torch does this"
            return
        missing = [o["dtype"] for o in operands.values() if DTYPES[o["dtype"]] is None]
        if missing:
            self.skipped["eager"] = f"this torch has no {missing[0]}"
            return
        # what autograd saves is used on the stream on which it was made, and only that one is captured
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        case = Case(device, op, dtype, sizes, operands, copies)
        torch.compiler.reset()  # each case has its own shapes
        variants = FORMS[op](case)
        by_triton = triton_kernels.VARIANTS.get(op) if triton_kernels and device.type == "cuda" else None
        if by_triton and (variant := by_triton(case)):
            variants["triton"] = variant
        first = None
        for name, function in variants.items():
            if name == "compiled" and device.type == "cpu":
                continue
            try:
                self.runs[name], result = self.prepare(function, case.sets, calls)
                if first is None:
                    first = result
                elif name == "triton":
                    self.check(result, first)
            except Exception as e:  # whatever it is, this variant does not work here
                self.runs.pop(name, None)
                self.skipped[name] = f"{type(e).__name__}: {e}".splitlines()[0]
                if device.type == "cuda":
                    torch.cuda.synchronize()

    @staticmethod
    def check(result, expected):
        for ours, other in zip(*(r if isinstance(r, (tuple, list)) else [r] for r in (result, expected))):
            error = (ours.float() - other.float()).norm() / other.float().norm()
            if not error < ALLOWED_ERROR:
                raise ArithmeticError(f"it is off by {error:.1%}")

    def prepare(self, function, sets, calls):
        """What a repeat calls, how often, and how many calls of `function` each of those is; and a result."""
        copies = len(sets)
        results = [None] * copies  # kept, so that no two copies share the memory of their result
        if self.device.type == "cpu":
            turns = itertools.cycle(range(copies))

            def in_turn():
                i = next(turns)
                results[i] = function(sets[i])
            in_turn()
            return (in_turn, calls, 1), results[0]
        per_graph = -(-min(calls, MAX_CALLS) // copies) * copies
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for t in sets:
                function(t)
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for i in range(per_graph):
                results[i % copies] = function(sets[i % copies])
        graph.replay()
        return (graph.replay, max(1, calls // per_graph), per_graph), results[0]

    def repeat(self):
        return {name: timed(self.device, call, launches) / per_launch * 1e9
                for name, (call, launches, per_launch) in self.runs.items()}
