"""Every operation on fixed random inputs: `python -m tests.tasks.backends.fused.interpreted FILE` saves the results.

Run with TRITON_INTERPRET=1 the kernels compute them, without it plain torch. With `rows` behind FILE it saves those.
"""

from __future__ import annotations

import sys

import torch

from tasks.backends.fused import int8, ops


def results() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    x, residual, dy = torch.randn(5, 72)[:, :70], torch.randn(5, 76)[:, :70], torch.randn(5, 70)
    weight = torch.randn(70)
    found: dict[str, torch.Tensor] = {}
    codes, scales = torch.randint(-127, 128, (6, 70), dtype=torch.int8), torch.rand(6)
    found["dequantized"] = torch.full((6, 70), float("nan"))
    ops.dequantize_int8(codes, scales, found["dequantized"])
    found["normed"], found["rstd"] = ops.rms_norm(x, weight, 1e-5, residual)
    found["sum"] = x.clone()
    wide = x * 1e6  # a residual stream in fp32, beside weights in fp16
    found["normed from fp32"], rstd = ops.rms_norm(wide, weight.half(), 1e-5, residual * 1e6)
    found["sum in fp32"] = wide / 1e6
    gradient, once_more = torch.randn(5, 70).half(), torch.empty(5, 70).half()
    ops.rms_norm_backward(dy.half(), wide, weight.half(), rstd, gradient, gradient, once_more)
    found["norm gradient from fp32"], found["again from fp32"] = gradient, once_more
    stream, again = torch.randn(5, 70), torch.empty(5, 70)
    ops.rms_norm_backward(dy, x, weight, found["rstd"], stream, stream, again)
    found["norm gradient"], found["again"] = stream, again
    angles = torch.rand(4, 8) * 6
    tables = angles.cos(), angles.sin()
    heads = torch.randn(6, 3, 20)[..., :16]
    ops.rotate(heads, tables, 4)
    found["rotated"] = heads.clone()
    placed = torch.randn(6, 3, 16)
    ops.rotate(placed, tables, 4, torch.tensor([3, 0, 1, 2, 2, 0]))
    found["rotated by position"] = placed
    grads = [torch.randn(6, count, 16) for count in (3, 2, 2)]
    found["turned back"] = torch.zeros(6, 7 * 16 + 8)
    ops.rotate_back(grads, found["turned back"], tables, 4)
    gate_up = torch.randn(5, 2 * 33 + 4)
    found["activation"] = ops.swiglu(gate_up, 33)
    ops.swiglu_backward(torch.randn(5, 33), gate_up)
    found["activation gradient"] = gate_up
    logits, labels = torch.randn(5, 9000), torch.tensor([1, 8999, ops.IGNORED, 0, 5])
    found["losses"] = ops.cross_entropy(logits, labels, torch.tensor(2.0))
    found["logit gradient"] = logits
    return found | int8_results()


def int8_results() -> dict[str, torch.Tensor]:
    """Codes as fp32: a number between two codes may be rounded either way where a kernel's sums differ in a bit."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, made: int8.Quantized) -> None:
        for part in ("codes", "scales", "apart", "plain"):
            if (tensor := getattr(made, part)) is not None:
                found[f"{name}: {part}"] = tensor.float()

    wide = torch.randn(20, 80) * torch.rand(20, 1)
    wide[3] = 0
    apart = int8.Apart.largest(wide[:, :70])
    keep("quantized", int8.quantize(wide, apart.factors, apart))
    keep("a gradient", int8.quantize(wide, torch.rand(70) / 100))
    halves = torch.arange(-127, 127.5, 0.5)
    keep("halves", int8.quantize(halves[None], torch.ones_like(halves)))
    normed, _ = int8.rms_norm(
        wide[:, :70], torch.rand(70), 1e-5, torch.randn(20, 76)[:, :70], int8.Apart.largest(wide[:, :70]), plain=True
    )
    keep("normed", normed)
    gate_up = torch.randn(20, 2 * 48 + 4)
    large = wide[:, :70] * 1e6
    of_fp32, _ = int8.rms_norm(large, torch.rand(70).half(), 1e-5, None, int8.Apart.largest(large), plain=True)
    found["normed from fp32: plain"] = of_fp32.plain
    activation = int8.swiglu(gate_up, 48, int8.Apart.largest(gate_up[:, :48]), plain=True)
    keep("activation", activation)
    keep("activation gradient", int8.swiglu_backward(torch.randn(20, 48), gate_up, torch.rand(96), plain=True))
    found["activation gradient: plain"] = gate_up
    w = torch.randint(-127, 128, (40, 48), dtype=torch.int8)
    turned = torch.empty((48, 40), dtype=torch.int8)
    int8.transpose(w, turned)
    found["transposed"] = turned.float()
    made = torch.zeros(20, 44)
    assert activation.apart is not None
    int8.product(activation, w, torch.rand(40), made[:, :40], activation.apart, torch.randn(32, 40))
    found["product"] = made
    plain = torch.empty(20, 40)
    int8.product(activation, w, None, plain)
    found["plain product"] = plain
    return found


def rows(width: int, dtype: torch.dtype, *, plain: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What SwiGLU and its gradient make in one kernel with quantizing, beside what two kernels make."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gate_up = torch.randn(6, 2 * width + 4, device=device).mul(3).to(dtype)
    gate_up[2], gate_up[3, 5], gate_up[4, width] = 0, float("nan"), float("inf")
    dout = torch.randn(6, width, device=device).to(dtype)
    factors = torch.rand(2 * width, device=device)
    apart = int8.Apart.largest(gate_up[:2, :width])
    one, made = int8.swiglu(gate_up, width, apart, plain=plain), ops.swiglu(gate_up, width)
    two = int8.quantize(made, apart.factors, apart)
    assert one.apart is not None and two.apart is not None
    pairs = [(one.codes, two.codes), (one.scales, two.scales), (one.apart, two.apart)]
    if one.plain is not None:
        pairs.append((one.plain, made))
    gradients = gate_up.clone()
    one = int8.swiglu_backward(dout, gate_up, factors, plain=plain)
    ops.swiglu_backward(dout, gradients)
    two = int8.quantize(gradients, factors)
    pairs += [(one.codes, two.codes), (one.scales, two.scales)]
    return [*pairs, (gate_up, gradients)] if plain else pairs


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN and zero with its sign."""
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )


def all_rows() -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Of the widths of small models, in one piece and in several."""
    torch.manual_seed(0)
    found = {}
    for width, piece in ((48, 4096), (688, 4096), (688, 512), (1536, 1024), (5000, 4096)):
        int8.PIECE = piece
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            for plain in (False, True):
                found[f"{width} in pieces of {piece}, {dtype}, {plain}"] = rows(width, dtype, plain=plain)
    return found


if __name__ == "__main__":
    torch.save(all_rows() if sys.argv[2:] == ["rows"] else results(), sys.argv[1])
