"""What products in int8, and fp16, do to the adapters' gradients, on trained models and real text, without a GPU.

    python -m bench.products --out bench/results/products.json --models NAME=FOLDER … [--batch 4] [--length 256]
    python -m bench.products --out bench/results/residual_gradients.json --fp16 --models NAME=FOLDER …

The reference is the engine in fp32 on the weights that int8 stands for. Against it: int8 forward, backward and both;
the columns that stay in 16 bits found in random tokens (as training finds them), found in the text itself, or none;
gradients rounded to the nearest or at random.

With `--fp16` the weights are not quantized, and against fp32 stands fp16, with the residual stream in fp16 and in fp32.
Then the same of a model that computes the same with a residual stream `TIMES` larger.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch.nn.functional import cosine_similarity

from tasks.backends.fused import int8, model, ops
from tasks.backends.fused.calibration import calibrate, observe
from tasks.backends.fused.projection import Input, Int8Projection, Projection
from tests.small_model import write_large
from tests.tasks.backends.fused.models import engine_gradients, tiny
from tests.tasks.models.large import computing_in

Tensor = torch.Tensor
TIMES = 16
"""Of the residual stream: a power of two."""


@dataclass(frozen=True)
class Variant:
    """What of the products is in int8, and how."""

    forward: bool = True
    backward: Literal["", "nearest", "at random"] = "nearest"
    apart: Literal["random tokens", "the text", "none"] = "random tokens"

    @property
    def name(self) -> str:
        passes = [f"forward, {self.apart}"] * self.forward + [f"backward, {self.backward}"] * bool(self.backward)
        return "; ".join(passes)


VARIANTS = (
    Variant(backward="", apart="none"),
    Variant(backward="", apart="the text"),
    Variant(backward=""),
    Variant(forward=False),
    Variant(forward=False, backward="at random"),
    Variant(),
    Variant(backward="at random"),
)


class Probe(Int8Projection):
    """A projection of which one pass may be exact."""

    variant = Variant()

    def normed(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Input, Tensor]:
        return ops.rms_norm(x, weight, eps, residual)

    def activated(self, gate_up: Tensor, width: int) -> Input:
        return ops.swiglu(gate_up, width)

    def activated_backward(self, dout: Tensor, gate_up: Tensor) -> None:
        ops.swiglu_backward(dout, gate_up)

    def _product(self, x: Input, adapted: bool) -> tuple[Tensor, Tensor]:
        if self.variant.forward:
            return super()._product(x, adapted)
        assert isinstance(x, Tensor)
        return x @ self._exact()[: self.width if adapted else self.rows].T, x

    def _product_backward(self, dy: Tensor, made: int8.Quantized | None) -> Tensor:
        if not self.variant.backward:
            return dy @ self._exact()
        if self.variant.backward == "at random":
            values = dy[:, : self.rows] * self._weight.scales
            scales = values.abs().amax(1).clamp_min(1e-30) / 127
            rounded = (values / scales[:, None] + torch.rand_like(values)).floor().clamp(-127, 127)
            made = int8.Quantized(rounded.to(torch.int8), scales)
        return super()._product_backward(dy, made)

    def _exact(self) -> Tensor:
        matrix = self._flat.copies.new_empty((self.width, self.columns))
        Projection.unpack(self, matrix)
        return matrix


def gradients(tuned: Any, ids: Tensor, variant: Variant | None) -> tuple[float, Tensor, list[Tensor]]:
    """The mean loss, all adapters' gradients as one, and by tensor."""
    torch.manual_seed(0)
    with patch.object(model, "Int8Projection", Probe), patch.object(Probe, "variant", variant or Variant()):
        fused = model.FusedModel(tuned, products="int8" if variant else "fp16", length=ids.shape[1])
        if variant and variant.apart == "the text":
            observe(fused, ids)
        elif variant and variant.apart == "random tokens":
            calibrate(fused)
        fused.adapters.clear()
        loss = float(fused.loss_and_gradients(ids, ids, torch.tensor(1.0 / ids.numel())))
    found = [parameter.grad.clone() for parameter in tuned.parameters() if parameter.grad is not None]
    return loss / ids.numel(), fused.adapters.grads.clone(), found


def texts(folder: Path, batch: int, length: int) -> Tensor:
    """Token ids of the standard library, sequences × tokens."""
    from transformers import AutoTokenizer

    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-d]*.py"))
    text = "\n".join(file.read_text(errors="replace") for file in files)[: 8 * batch * length]
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"][: batch * length]
    return torch.tensor(ids).view(batch, length)


def rows(folder: Path, batch: int, length: int) -> list[dict[str, Any]]:
    """By what is in int8."""
    inputs = texts(folder, batch, length)
    tuned = tiny("int8", base=folder)
    loss, whole, parts = gradients(tuned, inputs, None)
    found: list[dict[str, Any]] = [{"int8": "nothing", "loss": loss, "norm": float(whole.norm())}]
    for variant in VARIANTS:
        other, all_of_it, each = gradients(tuned, inputs, variant)
        found.append(
            {
                "int8": variant.name,
                "loss_difference": other - loss,
                "relative_error": float((all_of_it - whole).norm() / whole.norm()),
                "cosine": float(cosine_similarity(all_of_it, whole, 0)),
                "worst_tensor": max(
                    float((one - exact).norm() / exact.norm()) for one, exact in zip(each, parts, strict=True)
                ),
            }
        )
        print(found[-1], flush=True)
    return found


def fp16_rows(folder: Path, batch: int, length: int) -> list[dict[str, Any]]:
    """By the type of the residual stream, and by its size."""
    inputs, found = texts(folder, batch, length), []
    with tempfile.TemporaryDirectory() as large:
        write_large(Path(large), folder, TIMES)
        for times, place in ((1, folder), (TIMES, Path(large))):
            made = {}
            for name, dtype, kept in (
                ("fp32", torch.float32, False),
                ("fp16", torch.float16, False),
                ("fp16, residual stream in fp32", torch.float16, True),
            ):
                with computing_in(dtype):
                    tuned = tiny("none", "all-linear", base=place, fp32_residual=kept)
                one = engine_gradients(tuned, inputs, inputs)
                made[name] = torch.cat([part.float().flatten() for part in one.gradients.values()])
                error = float((made[name] - made["fp32"]).norm() / made["fp32"].norm())
                row = {"stream": times, "precision": name, "loss": one.loss, "relative_error": error}
                # JSON has no word for what is no number
                found.append({key: None if value != value else value for key, value in row.items()})
                print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--fp16", action="store_true", help="the residual stream in fp16 and in fp32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    record = {}
    for pair in arguments.models:
        name, _, folder = pair.partition("=")
        record[name] = (fp16_rows if arguments.fp16 else rows)(Path(folder), arguments.batch, arguments.length)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
