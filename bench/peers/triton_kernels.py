"""What Triton makes of some of our kernels, as one writes them by hand: norms, softmax, attention.

VARIANTS has by op a function of a case of torch_kernels that returns what computes it, or None for a case that no
kernel here computes.
"""
import torch
import triton
import triton.language as tl

MAX_WIDTH = 16384  # of a row, which a program keeps in registers


@triton.jit
def norm_row_per_program(y, h, x, residual, weight, bias, width, eps, CENTRED: tl.constexpr, RESIDUAL: tl.constexpr,
                         BIAS: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = tl.program_id(0).to(tl.int64) * width + columns
    row = tl.load(x + at, inside, 0).to(tl.float32)
    if RESIDUAL:
        row += tl.load(residual + at, inside, 0).to(tl.float32)
        tl.store(h + at, row, inside)
        row = row.to(h.dtype.element_ty).to(tl.float32)
    if CENTRED:
        row = tl.where(inside, row - tl.sum(row) / width, 0)
    row *= tl.rsqrt(tl.sum(row * row) / width + eps) * tl.load(weight + columns, inside, 0).to(tl.float32)
    if BIAS:
        row += tl.load(bias + columns, inside, 0).to(tl.float32)
    tl.store(y + at, row, inside)


@triton.jit
def softmax_row_per_program(y, x, width, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = tl.program_id(0).to(tl.int64) * width + columns
    row = tl.load(x + at, inside, -float("inf")).to(tl.float32)
    row = tl.exp(row - tl.max(row))
    tl.store(y + at, row / tl.sum(row), inside)


@triton.autotune([triton.Config({"ROWS": rows, "KEYS": keys}, num_warps=warps, num_stages=stages)
                  for rows, keys, warps, stages in ((128, 128, 8, 2), (128, 128, 8, 3), (128, 64, 8, 3),
                                                    (64, 64, 4, 3))], key=["keys", "D", "CAUSAL"])
@triton.jit
def attention_rows_per_program(y, q, k, v, rows, keys, heads, group, scale, CAUSAL: tl.constexpr, D: tl.constexpr,
                               ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Operands are [B, rows, heads, D]; the longest causal rows come first."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    b = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    kv_heads = heads // group
    row = block * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, D)
    of_q = ((b * rows + row[:, None]) * heads + head) * D + d[None, :]
    tile_q = tl.load(q + of_q, row[:, None] < rows, 0)
    of_key = (b * keys * kv_heads + head // group) * D + d[None, :]
    most = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, D], tl.float32)
    end = tl.minimum((block + 1) * ROWS + keys - rows, keys) if CAUSAL else keys
    unmasked = (block * ROWS + keys - rows + 1) // KEYS * KEYS if CAUSAL else keys // KEYS * KEYS
    for first in range(0, unmasked, KEYS):
        of_kv = of_key + (first + tl.arange(0, KEYS))[:, None] * kv_heads * D
        most, total, sums = attend(tile_q, tl.load(k + of_kv), tl.load(v + of_kv), None, most, total, sums, scale)
    for first in range(unmasked, end, KEYS):
        key = first + tl.arange(0, KEYS)
        of_kv = of_key + key[:, None] * kv_heads * D
        seen = (key < keys)[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= row[:, None] + keys - rows)
        inside = (key < keys)[:, None]
        most, total, sums = attend(tile_q, tl.load(k + of_kv, inside, 0), tl.load(v + of_kv, inside, 0), seen, most,
                                   total, sums, scale)
    tl.store(y + of_q, sums / total[:, None], row[:, None] < rows)


@triton.jit
def attend(tile_q, tile_k, tile_v, seen, most, total, sums, scale):
    """`scale` has the logarithm of e to the base 2 in it."""
    scores = tl.dot(tile_q, tl.trans(tile_k)) * scale
    if seen is not None:
        scores = tl.where(seen, scores, -float("inf"))
    higher = tl.maximum(most, tl.max(scores, 1))
    p = tl.exp2(scores - higher[:, None])
    kept = tl.exp2(most - higher)
    sums = tl.dot(p.to(tile_v.dtype), tile_v, sums * kept[:, None])
    return higher, total * kept + tl.sum(p, 1), sums


def norm(centred):
    def variant(case):
        rows, width = case.operands["x"]["shape"]
        if width > MAX_WIDTH or "weight" not in case.operands:
            return None
        block = triton.next_power_of_2(width)
        warps = min(max(block // 512, 1), 16)

        def run(t):
            x = t["x"]
            y, h = torch.empty_like(x), torch.empty_like(x) if "residual" in t else x
            norm_row_per_program[(rows,)](y, h, x, t.get("residual", x), t["weight"], t.get("bias", x), width, 1e-5,
                                          centred, "residual" in t, "bias" in t, block, num_warps=warps)
            return (y, h) if "residual" in t else y
        return run
    return variant


def softmax(case):
    rows, width = case.operands["x"]["shape"]
    if width > MAX_WIDTH:
        return None
    block = triton.next_power_of_2(width)

    def run(t):
        y = torch.empty_like(t["x"], dtype=t["y"].dtype)
        softmax_row_per_program[(rows,)](y, t["x"], width, block, num_warps=min(max(block // 512, 1), 16))
        return y
    return run


def attention(case):
    """Of q, k and v as torch_kernels has turned them: [B, heads, rows, D], whose memory is [B, rows, heads, D]."""
    d = case.size("D")
    if d & (d - 1) or d < 16 or case.dtype not in (torch.bfloat16, torch.float16) or "bias" in case.operands:
        return None

    def run(t):
        q, k, v = (t[name].transpose(1, 2) for name in "qkv")
        b, rows, heads, _ = q.shape
        y = torch.empty_like(q)
        attention_rows_per_program[lambda meta: (triton.cdiv(rows, meta["ROWS"]), b * heads)](
            y, q, k, v, rows, k.shape[1], heads, heads // k.shape[2], 1.4426950408889634 / d ** 0.5,
            "CAUSAL" in case.sizes, d)
        return y.transpose(1, 2)
    return run


VARIANTS = {"layernorm": norm(True), "rmsnorm": norm(False), "softmax": softmax, "attention": attention}
