"""Predicted against measured memory of the training process on a CPU, backend `fused`.

    python -m bench.memory_cpu --out bench/results/memory_cpu.json

The built-in model, and small ones with the vocabularies of large ones, take some steps through the real training stage,
with 256 and 1,024 tokens a sequence. The peak is the resident memory of the training process, as training reports it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from artifacts.schema import Plan
from bench import common
from tasks import training
from tasks.backends.contract import JobShape, Layout
from tasks.backends.fused.memory import FusedMemory
from tasks.models.base_model import ModelConfig, locate
from tasks.models.shape import read_shape

BUILT_IN = Path(__file__).parents[1] / "models" / "codellama-tiny"
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
VOCABULARIES = (32_000, 49_152, 152_064)
"""Those of the tokenizers of Llama 2, StarCoder and Qwen; here only the model's matrices are so large."""
STEPS = 5
CASES = ((256, 4), (1024, 2), (1024, 8), (256, 32))
"""Tokens of a sequence, sequences at a time."""


def models(root: Path) -> dict[str, Path]:
    """Folders by name."""
    from transformers import LlamaConfig, LlamaForCausalLM

    found = {"built-in": BUILT_IN}
    for vocabulary in VOCABULARIES:
        folder = found[f"{vocabulary:,} tokens"] = root / str(vocabulary)
        shutil.copytree(BUILT_IN, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES)).half().save_pretrained(folder)
    return found


def measure(root: Path, name: str, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    inputs: dict[int, common.Inputs] = {}
    lora = {"r": 16, "alpha": 32, "target_modules": ("all-linear",)}
    for length, sequences in CASES:
        place = root / f"{folder.name}-{length}"
        if length not in inputs:
            place.mkdir()
            inputs[length] = common.inputs_of(place, locate(ModelConfig(name=str(folder))), "texts", max_length=length)
        plan = Plan(
            device="cpu",
            precision="fp32",
            micro_batch=sequences,
            accumulation=1,
            gradient_checkpointing=False,
            backend="fused",
        )
        settings = {"effective_batch": sequences, "lora": training.LoraSettings.model_validate(lora)}
        measured = common.run_stage(place, str(sequences), plan, STEPS, inputs[length], **settings)["peak_gib"]
        job = JobShape(
            quantization="int8",
            max_length=length,
            effective_batch=sequences,
            lora_rank=lora["r"],
            lora_target_modules=lora["target_modules"],
        )
        predicted = FusedMemory(read_shape(folder), job, "fp32", on_gpu=False).peak_gib(Layout(sequences))
        rows.append(
            {
                "model": name,
                "sizes": {} if folder == BUILT_IN else SIZES | {"vocab_size": int(folder.name)},
                "length": length,
                "sequences": sequences,
                "predicted_gib": round(predicted, 3),
                "peak_gib": measured,
                "error_share": round(predicted / measured - 1, 4),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for name, folder in models(Path(scratch)).items() for row in measure(Path(scratch), name, folder)]
    arguments.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
