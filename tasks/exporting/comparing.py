"""What forms share to find out whether an export computes what the trained model computes.

One model is loaded at a time; logits are kept on the host.
"""

from __future__ import annotations

import gc
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from artifacts.escaping import visible
from artifacts.rows import by_parts
from artifacts.schema import Comparison, Plan
from tasks.exporting.contract import Chunks
from tasks.models.residual import keep_in_fp32, unsupported

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tasks.exporting.config import ExportingConfig

log = logging.getLogger(__name__)

HALF_PRECISION = 5
"""How much further off logits may be when fp16 is computed in, as on a GPU, not only stored."""


def read_chunks(held_out: Path, positions: int) -> list[list[int]]:
    """The first held-out chunks, together at most `positions` tokens."""
    chunks: list[list[int]] = []
    with by_parts(held_out) as file:
        for batch in file.iter_batches(batch_size=16, columns=["input_ids"]):
            for ids in batch.column(0).to_pylist():
                chunks.append(ids[:positions])
                positions -= len(chunks[-1])
                if positions <= 0:
                    return chunks
    return chunks


def logits(model: Any, chunks: Chunks) -> torch.Tensor:
    """Logits at every position of every chunk, each chunk alone: positions × vocabulary, fp32, on the host."""
    import torch

    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in chunks]
    return torch.cat(rows)


def trained_logits(
    base: Path, adapter: Path, chunks: Chunks, plan: Plan, kept: Path | None = None
) -> tuple[torch.Tensor, float]:
    """Of the trained model as it would be without quantization, and the largest difference that the adapter makes.

    Args:
        base, adapter: folders.
        kept: a folder where they are looked for, and put for the next who asks.
    """
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    file = kept / "trained.safetensors" if kept else None
    if file is None or not file.exists():
        # From the folder that is here; the one that the export names is the same, or the hub's copy of it.
        reference = PeftModel.from_pretrained(load_plain(base, plan), adapter).eval()
        expected = logits(reference, chunks)
        with reference.disable_adapter():
            effect = (logits(reference, chunks) - expected).abs().max()
        del reference
        release_memory(plan)
        if file is None:
            return expected, float(effect)
        save_file({"logits": expected, "effect": effect}, file)
    found = load_file(file)
    return found["logits"], float(found["effect"])


def load_plain(folder: Path, plan: Plan) -> PreTrainedModel:
    """A model by transformers alone: in fp32 on a CPU, where it costs nothing, in fp16 on a GPU. There its residual
    stream is in fp32 wherever the family can have it: a model that was trained in bf16 may overflow in fp16."""
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
    if plan.fp32_residual or (plan.device == "cuda" and unsupported(model.config.to_dict()) is None):
        keep_in_fp32(model, dtype)
    return model.eval()


def release_memory(plan: Plan) -> None:
    """Give back what models that nobody holds any more occupy on the GPU."""
    import torch

    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()


def judge(against: str, found: torch.Tensor, expected: torch.Tensor, bound: float, *, exact: bool = True) -> Comparison:
    """How far logits are from those of the trained model.

    Raises:
        StageError: further than `bound`, or not finite.
    """
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
    return Comparison(
        against=against, largest_difference=difference, bound=bound, positions=int(expected.shape[0]), exact=exact
    )


def gguf_share(config: ExportingConfig, plan: Plan) -> float:
    """How far a logit of a GGUF file of 16 bits may be off, as a share of the largest. On a GPU the trained model is
    itself computed in fp16, while llama.cpp is not: what the merged model may differ there comes on top."""
    on_gpu = HALF_PRECISION * config.merged_tolerance if plan.device == "cuda" else 0.0
    return config.gguf_tolerance + on_gpu


def literal(text: str) -> str:
    """A string as Python reads it, in double quotes, whatever is in it."""
    return visible(json.dumps(text, ensure_ascii=False))
