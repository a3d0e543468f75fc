"""The LoRA adapter, for `peft`.

Compared with plain `peft` on the same quantized base, against the trained model. The same weights go through the same
kernels: only a damaged or misread adapter makes a difference.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from artifacts.errors import StageError
from artifacts.escaping import code, quoted
from artifacts.progress import Progress
from artifacts.schema import Comparison, Plan, Quantization
from tasks.exporting.adapter import CONFIG, SETS, WEIGHTS, Adapter, public_name
from tasks.exporting.comparing import judge, literal, logits
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Chunks, Export, Ingredients
from tasks.exporting.serving import vllm_lines
from tasks.models.base_model import ModelReference
from tasks.models.files import write_json
from tasks.models.loading import attach_adapter, load_base
from tasks.models.shape import ModelShape

log = logging.getLogger(__name__)

_READ_BY_ALL = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias")
"""What loaders of adapters look for, whatever its value."""


class AdapterExport:
    """See `tasks.exporting.contract.Export`."""

    name = "adapter"
    title = "LoRA adapter"
    heading = ", adapted (LoRA adapter)"
    library = "peft"
    needs: tuple[str, ...] = ()

    def check_ready(self) -> None:
        return None

    def check_model(self, model: ModelReference) -> None:
        return None

    def stored_bytes(self, shape: ModelShape) -> float:
        return 0.0  # counted with the checkpoints, of which it is one

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        write_adapter(made.adapter, made.model, folder)

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        bounded = config.quantization, config.adapter_bound
        return compare_adapter(made.trained_on, made.adapter.folder, folder, chunks, made.plan, *bounded)

    def introduction(self, made: Ingredients) -> str:
        revision = f" at revision {code(made.base_revision)}" if made.base_revision else ""
        return (
            f"A LoRA adapter for {code(made.base_name)}{revision}, adapted to {quoted(made.sample.source)}. "
            "Loaded again and compared with the trained model on the same base on held-out text before it was "
            "published."
        )

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        at = f", revision={literal(revision)}" if revision else ""
        base, folder = literal(base), literal(folder)
        return (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained({base}{at}, dtype="auto", device_map="auto")\n'
            f"model = PeftModel.from_pretrained(base, {folder})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({base}{at})"
        )

    def serving_lines(self, made: Ingredients, folder: str) -> str:
        return vllm_lines(made.adapter, made.base_name, made.base_revision, folder)


FORM: Export = AdapterExport()


def write_adapter(adapter: Adapter, model: ModelReference, folder: Path) -> None:
    """Write the adapter so that `peft` finds its base by itself, with equal bytes for equal adapters.

    No tokenizer goes with it: it is the base model's, unchanged, and `AutoPeftModelForCausalLM` would enlarge the
    embeddings where it finds one, because transformers 5 adds `<FILL_ME>` to Code Llama's 32,016 tokens.
    """
    folder.mkdir(parents=True)
    shutil.copyfile(adapter.folder / WEIGHTS, folder / WEIGHTS)
    name, revision = public_name(model)
    settings = {
        **_lean(adapter.settings),
        "base_model_name_or_path": name,
        "revision": revision,
        "inference_mode": True,
    }
    for name in SETS:  # sets in PEFT, saved in the order of their hashes
        if isinstance(settings.get(name), list):
            settings[name] = sorted(settings[name])
    write_json(folder / CONFIG, settings)


def _lean(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: PEFT takes its default for a field that is not there, and refuses one that it does not
    know, as each version does with fields of a later one."""
    from peft import LoraConfig

    defaults = LoraConfig().to_dict()
    return {
        name: value for name, value in settings.items() if name in _READ_BY_ALL or value != defaults.get(name, value)
    }


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
    named = "unquantized" if quantization == "none" else quantization
    against = f"adapter loaded with peft against the trained model, both on the {named} base"

    def compare() -> Comparison:
        tuned = attach_adapter(model, trained)
        expected = logits(tuned, chunks)
        again = PeftModel.from_pretrained(tuned.unload(), exported).eval()
        found = logits(again, chunks)
        again.unload()
        return judge(against, found, expected, bound)

    try:
        return compare()
    except StageError:
        with suppress(StageError):
            compare()
            log.warning("computed once more they agree: not the adapter, but what computed it, is to be doubted")
        raise
