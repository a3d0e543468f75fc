"""Whether an export, loaded again as its users will load it, computes what the trained model computes.

Two questions, because quantization must not blur them:

- the adapter: with plain `peft` on the same quantized base, against the trained model. The same weights through the
  same kernels: only a damaged or misread adapter makes a difference.
- the merged model: with plain `transformers`, against the unquantized base with the adapter beside it. The weights
  differ by one rounding to fp16, and so the bound is a share of the largest logit. Measured with adapters on all linear
  layers of Llamas with 8 and 32 layers: 0.0004 to 0.0007 when computed in fp32, as here on a CPU, and 0.002 to 0.007
  when computed in fp16, as here on a GPU.

What the quantization itself changes is in neither. One model is loaded at a time; logits are kept on the host.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from artifacts.schema import Comparison, Plan, Quantization
from tasks.models.loading import attach_adapter, load_base

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

Chunks = Sequence[Sequence[int]]

HALF_PRECISION = 5
"""How much further off logits may be when fp16 is computed in, not only stored."""


def read_chunks(held_out: Path, positions: int) -> list[list[int]]:
    """The first held-out chunks, together at most `positions` tokens."""
    import pyarrow.parquet as pq

    chunks: list[list[int]] = []
    with pq.ParquetFile(held_out) as file:
        for batch in file.iter_batches(batch_size=16, columns=["input_ids"]):
            for ids in batch.column(0).to_pylist():
                chunks.append(ids[:positions])
                positions -= len(chunks[-1])
                if positions <= 0:
                    return chunks
    return chunks


def compare_adapter(
    base: Path, trained: Path, exported: Path, chunks: Chunks, plan: Plan, quantization: Quantization, bound: float
) -> Comparison:
    """The exported adapter against the trained one, both on the base as it was trained.

    Raises:
        StageError: a logit is further off than `bound`, or not finite. Whether it is so again is in the log: a damaged
            adapter differs every time.
    """
    from peft import PeftModel

    model = load_base(base, quantization, plan)
    against = f"adapter loaded with peft against the trained model, both on the {_named(quantization)} base"

    def compare() -> Comparison:
        tuned = attach_adapter(model, trained)
        expected = logits(tuned, chunks)
        again = PeftModel.from_pretrained(tuned.unload(), exported).eval()
        found = logits(again, chunks)
        again.unload()
        return _judge(against, found, expected, bound)

    try:
        return compare()
    except StageError:
        with suppress(StageError):
            compare()
            log.warning("computed once more they agree: not the adapter, but what computed it, is to be doubted")
        raise


def compare_merged(base: Path, adapter: Path, merged: Path, chunks: Chunks, plan: Plan, tolerance: float) -> Comparison:
    """The merged model against unquantized base and exported adapter.

    Raises:
        StageError: a logit is further off than `tolerance` × the largest logit (on a GPU `HALF_PRECISION` times that),
            or not finite.
    """
    from peft import PeftModel

    # From the folder that is here; the one that the export names is the same, or the hub's copy of it.
    reference = PeftModel.from_pretrained(_load_plain(base, plan), adapter).eval()
    expected = logits(reference, chunks)
    with reference.disable_adapter():
        effect = float((logits(reference, chunks) - expected).abs().max())
    del reference
    release_memory(plan)
    found = logits(_load_plain(merged, plan), chunks)
    release_memory(plan)
    against = "merged model loaded with transformers against unquantized base and adapter"
    share = tolerance * (HALF_PRECISION if plan.device == "cuda" else 1)
    comparison = _judge(against, found, expected, share * float(expected.abs().max()))
    if effect < 2 * comparison.largest_difference:
        log.warning("the adapter changes logits by %.2g at most, hardly more than rounding to fp16 does", effect)
    return comparison


def logits(model: Any, chunks: Chunks) -> torch.Tensor:
    """Logits at every position of every chunk, each chunk alone: positions × vocabulary, fp32, on the host."""
    import torch

    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in chunks]
    return torch.cat(rows)


def release_memory(plan: Plan) -> None:
    """Give back what models that nobody holds any more occupy on the GPU."""
    import torch

    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()


def _load_plain(folder: Path, plan: Plan) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if plan.device == "cpu" else torch.float16
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": plan.device},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def _judge(against: str, found: torch.Tensor, expected: torch.Tensor, bound: float) -> Comparison:
    if found.shape != expected.shape:
        raise StageError(f"{against}: logits of shape {tuple(found.shape)} against {tuple(expected.shape)}")
    difference = float((found - expected).abs().max())
    if not difference <= bound:  # also when it is not a number
        raise StageError(
            f"{against}: logits differ by up to {difference:.3g}, {bound:.3g} is allowed; nothing was exported",
            field="exporting",
            remedy="look at the loss curve; if the model is sound, `codetune run … --refresh training` trains it again",
        )
    log.info("%s: logits differ by at most %.3g (allowed %.3g)", against, difference, bound)
    return Comparison(against=against, largest_difference=difference, bound=bound, positions=int(expected.shape[0]))


def _named(quantization: Quantization) -> str:
    return "unquantized" if quantization == "none" else quantization
