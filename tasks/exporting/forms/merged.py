"""The whole model in fp16, adapter merged in, for `transformers`.

Compared with plain `transformers`, against the unquantized base with the adapter beside it: quantization must not blur
it. The weights differ by one rounding to fp16, and so the bound is a share of the largest logit. Measured with adapters
on all linear layers of Llamas with 8 and 32 layers: 0.0004 to 0.0007 when computed in fp32, as here on a CPU, and 0.002
to 0.007 when computed in fp16, as here on a GPU. What the quantization itself changes is not in it.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from artifacts.escaping import code, quoted
from artifacts.progress import Progress
from artifacts.schema import Comparison, Plan
from tasks.exporting.comparing import HALF_PRECISION, judge, literal, load_plain, logits, release_memory, trained_logits
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Chunks, Export, Ingredients
from tasks.exporting.merging import merge
from tasks.exporting.others import end_middles, write_tokenizer_model
from tasks.exporting.serving import NAME
from tasks.models.base_model import ModelReference
from tasks.models.shape import ModelShape
from tasks.models.vocabulary import load_tokenizer

log = logging.getLogger(__name__)


class MergedExport:
    """See `tasks.exporting.contract.Export`."""

    name = "merged"
    title = "merged, fp16"
    heading = ", adapted"
    library = "transformers"
    needs: tuple[str, ...] = ()

    def check_ready(self) -> None:
        return None

    def check_model(self, model: ModelReference) -> None:
        return None

    def stored_bytes(self, shape: ModelShape) -> float:
        return 2.0 * shape.parameters

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        merge(made.base, made.adapter, folder, round(config.max_shard_gb * 1e9), progress)
        tokenizer = load_tokenizer(made.model.metadata)
        write_tokenizer_model(tokenizer, made.sample, folder)
        if made.tokens.format == "fim":
            end_middles(tokenizer, folder)

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        where = made.base, made.adapter.folder, folder
        return compare_merged(*where, chunks, made.plan, config.merged_tolerance, made.scratch)

    def introduction(self, made: Ingredients) -> str:
        revision = f" at revision {code(made.base_revision)}" if made.base_revision else ""
        return (
            f"The fp16 weights, adapter merged in, of {code(made.base_name)}{revision}, adapted to "
            f"{quoted(made.sample.source)}. Loaded again and compared with the unquantized base with the adapter on "
            "held-out text before it was published."
        )

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained({literal(folder)}, dtype="auto", device_map="auto")\n'
            f"tokenizer = AutoTokenizer.from_pretrained({literal(folder)})"
        )

    def serving_lines(self, made: Ingredients, folder: str) -> str:
        return f"vllm serve {shlex.quote(folder)} --served-model-name {NAME}"


FORM: Export = MergedExport()


def compare_merged(
    base: Path, adapter: Path, merged: Path, chunks: Chunks, plan: Plan, tolerance: float, kept: Path | None = None
) -> Comparison:
    """The merged model against unquantized base and adapter.

    Raises:
        StageError: a logit is further off than `tolerance` × the largest logit (on a GPU `HALF_PRECISION` times that),
            or not finite.
    """
    expected, effect = trained_logits(base, adapter, chunks, plan, kept)
    found = logits(load_plain(merged, plan), chunks)
    release_memory(plan)
    against = "merged model loaded with transformers against unquantized base and adapter"
    share = tolerance * (HALF_PRECISION if plan.device == "cuda" else 1)
    comparison = judge(against, found, expected, share * float(expected.abs().max()))
    if effect < 2 * comparison.largest_difference:
        log.warning("the adapter changes logits by %.2g at most, hardly more than rounding to fp16 does", effect)
    return comparison
