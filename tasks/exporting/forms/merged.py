"""The whole model in fp16, adapter merged in, for `transformers`.

Compared with plain `transformers`, against the unquantized base with the adapter beside it: quantization must not blur
it. The weights differ by one rounding to fp16, and so the bound is a share of the largest logit. Measured with adapters
on all linear layers of Llamas with 8 and 32 layers: 0.0004 to 0.0007 when computed in fp32, as here on a CPU, and 0.002
to 0.007 when computed in fp16, as here on a GPU. What the quantization itself changes is not in it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.escaping import code, quoted
from artifacts.progress import Progress
from artifacts.schema import Comparison, Plan
from tasks.exporting.comparing import judge, literal, logits, release_memory
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Chunks, Export, Ingredients
from tasks.exporting.merging import merge
from tasks.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

HALF_PRECISION = 5
"""How much further off logits may be when fp16 is computed in, not only stored."""


class MergedExport:
    """See `tasks.exporting.contract.Export`."""

    name = "merged"
    title = "merged, fp16"
    heading = ", adapted"
    library = "transformers"

    def stored_bytes(self, shape: ModelShape) -> float:
        return 2.0 * shape.parameters

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        merge(made.base, made.adapter, folder, round(config.max_shard_gb * 1e9), progress)

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        return compare_merged(
            made.base, made.adapter.folder, folder, chunks, made.plan, tolerance=config.merged_tolerance
        )

    def introduction(self, made: Ingredients) -> str:
        revision = f" at revision {code(made.model.revision)}" if made.model.revision else ""
        return (
            f"The fp16 weights, adapter merged in, of {code(made.model.name)}{revision}, adapted to "
            f"{quoted(made.sample.source)}. Loaded again and compared with the unquantized base with the adapter on "
            "held-out text before it was published."
        )

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained({literal(folder)}, dtype="auto", device_map="auto")\n'
            f"tokenizer = AutoTokenizer.from_pretrained({literal(folder)})"
        )


FORM: Export = MergedExport()


def compare_merged(base: Path, adapter: Path, merged: Path, chunks: Chunks, plan: Plan, tolerance: float) -> Comparison:
    """The merged model against unquantized base and adapter.

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
    comparison = judge(against, found, expected, share * float(expected.abs().max()))
    if effect < 2 * comparison.largest_difference:
        log.warning("the adapter changes logits by %.2g at most, hardly more than rounding to fp16 does", effect)
    return comparison


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
