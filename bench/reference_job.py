"""The reference job, stage by stage, on a GPU: does it run within 16 GB, and what does each stage take?

    python -m bench.reference_job --out results.json [--steps 200] [--cap-gib 14.56]

Uses CodeLlama-7b's shape with random weights (a few channels made large, as in trained models), so that nothing has to
be downloaded, and the standard library as the code to learn. The stages are the real ones, without Prefect. Figures of
learning mean nothing here; times, memory and agreement do.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.progress import SILENT, Progress
from artifacts.schema import Handle
from flows.config import PipelineConfig
from tasks import evaluation, exporting, generation, preflight, prompts, quantization, sampling, tokenization, training
from tasks.models.base_model import ModelConfig, locate
from tasks.running.stage import Stage

TINY = Path(__file__).parents[1] / "models" / "codellama-tiny"
SHAPES: dict[str, dict[str, Any]] = {
    "7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
    },
    "1.5b": {  # Qwen2.5-Coder's, but for its vocabulary and biases
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
    },
}


def write_random_model(folder: Path, shape: dict[str, Any], device: str) -> None:
    """A model of this shape with Code Llama's vocabulary size and the built-in tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32016, max_position_embeddings=16384, rope_theta=1e6, dtype="float16", **shape)
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        outliers = torch.randperm(config.hidden_size)[:6]
        for layer in model.model.layers:
            layer.input_layernorm.weight[outliers] *= 20
    model.save_pretrained(folder, max_shard_size="2GB")
    for file in [*TINY.glob("tokenizer*"), *TINY.glob("special_tokens_map.json")]:
        shutil.copy(file, folder)


def run(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Every stage in turn; returns seconds by stage and what the handles say."""
    import torch

    record: dict[str, Any] = {"shape": arguments.shape, "steps": arguments.steps, "cap_gib": arguments.cap_gib}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record["card"] = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    write_random_model(root / "model", SHAPES[arguments.shape], device)
    if device == "cuda":
        torch.cuda.empty_cache()
    model = locate(ModelConfig(name=str(root / "model")))
    train = training.TrainingConfig(max_steps=arguments.steps, warmup_steps=min(10, arguments.steps // 2))
    tokenize = tokenization.TokenizationConfig()
    job = PipelineConfig().job().model_copy(update={"max_steps": train.max_steps})

    def stage(function: Callable[..., Handle], config: Any, **inputs: Any) -> Any:
        name = function.__name__.removeprefix("run_")
        workdir = root / name
        workdir.mkdir()
        started = time.perf_counter()
        handle = function(config, **inputs, workdir=workdir, progress=SILENT)
        record[name] = {"seconds": round(time.perf_counter() - started, 2), **handle.model_dump(mode="json")}
        print(f"{name}: {record[name]['seconds']} s: {handle.summary}", flush=True)
        arguments.out.write_text(json.dumps(record, indent=1))
        return handle.model_copy(update={"fingerprint": name})

    cleared = stage(
        preflight.STAGE.run,
        preflight.PreflightConfig(precision="fp16", gpu_memory_gib=arguments.cap_gib if device == "cuda" else None)
        if device == "cuda"
        else preflight.PreflightConfig(),
        model=model,
        job=job,
    )
    source = sampling.config.LocalSource(paths=("stdlib",), repositories="top-level", exclude=("*test*",))
    sample = stage(sampling.run_sampling, sampling.SamplingConfig(source=source, files=500))
    tokens = stage(tokenization.run_tokenization, tokenize, sample=sample, model=model)
    assert train.quantization != "none"
    quantize = quantization.QuantizationConfig(quantization=train.quantization, device=device)
    base = stage(quantization.run_quantization, quantize, model=model)
    common = {"model": model, "tokens": tokens, "plan": cleared.plan, "base": base}
    checkpoint = stage(training.run_training, train, **common)
    exported = stage(
        exporting.run_exporting, exporting.ExportingConfig(), sample=sample, checkpoint=checkpoint, **common
    )
    few = prompts.PromptsConfig(max_chunks=64, line_prompts=32, fim_prompts=32, block_prompts=0)
    asked = stage(prompts.run_prompts, few, sample=sample, model=model, tokens=tokens)

    def anew(part: Stage[Any], settings: Any, progress: Progress, **inputs: Any) -> Any:
        workdir = root / inputs["asked"].name
        workdir.mkdir()
        return part.run(settings, **inputs, workdir=workdir, progress=progress)

    computed = {"model": model, "exported": exported, "plan": cleared.plan, "base": base, "parts": anew}
    generations = stage(generation.run_generation, generation.GenerationConfig(), prompts=asked, **computed)
    stage(evaluation.run_evaluation, evaluation.EvaluationConfig(), generations=generations)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cap-gib", type=float, default=14.56, help="GPU memory that the run may use (a T4's)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with tempfile.TemporaryDirectory() as root:
        run(arguments, Path(root))


if __name__ == "__main__":
    main()
