"""Small training jobs on the built-in base model."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.progress import Listener, Progress
from artifacts.schema import Checkpoint, Plan, TokenizedDataset, TokenizedSplit
from tasks.models.base_model import ModelConfig, locate
from tasks.training import TrainingConfig, run_training
from tasks.training.aside import set_aside
from tasks.training.batches import arranged
from tasks.training.messages import RESULT, Sender, Spec
from tests.conftest import SMALL_MODEL

LENGTH = 64
PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=4, gradient_checkpointing=False, backend="transformers"
)
CONFIG = TrainingConfig(max_steps=8, save_steps=2, warmup_steps=1, learning_rate=5e-3, cpu_threads=1)


def rows(count: int = 24, longest: int = LENGTH, **columns: Any) -> list[dict[str, Any]]:
    """Chunks of different lengths, each a run of numbers that a model soon learns to continue."""
    lengths = [longest if number % 3 else 20 + number for number in range(count)]
    return [
        {
            "input_ids": [(3 * place + number) % 100 + 300 for place in range(length)],
            "repo": f"repo-{number % 5}",
            "path": f"file_{number}.py",
            "sha256": "0" * 64,
            "language": "Python",
            "chunk": 0,
            **{name: make(length) for name, make in columns.items()},
        }
        for number, length in enumerate(lengths)
    ]


def dataset(folder: Path, chunks: list[dict[str, Any]], max_length: int = LENGTH) -> TokenizedDataset:
    """What the tokenization stage would hand over."""
    folder.mkdir(exist_ok=True)
    lists = {"input_ids": pa.list_(pa.int32()), "completion_mask": pa.list_(pa.int8()), "chunk": pa.int32()}
    schema = pa.schema([(name, lists.get(name, pa.string())) for name in chunks[0]])
    pq.write_table(pa.Table.from_pylist(chunks, schema), folder / "train.parquet", row_group_size=7)
    tokens = sum(len(chunk["input_ids"]) for chunk in chunks)
    split = TokenizedSplit(files=len(chunks), chunks=len(chunks), tokens=tokens, padding=0, text_bytes=tokens)
    return TokenizedDataset(format="causal", max_length=max_length, train=split, held_out=split, path=folder)


def run(
    workdir: Path,
    tokens: TokenizedDataset,
    config: TrainingConfig = CONFIG,
    listener: Listener | None = None,
    plan: Plan = PLAN,
) -> Checkpoint:
    """The stage, with its process."""
    workdir.mkdir(exist_ok=True)
    progress = Progress(listener) if listener else Progress()
    model = locate(ModelConfig(name=str(SMALL_MODEL)))
    return run_training(config, model=model, tokens=tokens, plan=plan, workdir=workdir, progress=progress)


def spec(tokens: TokenizedDataset, config: TrainingConfig, plan: Plan, model: Path = SMALL_MODEL) -> Spec:
    """What the training process is told."""
    return Spec(
        config=config,
        plan=plan,
        tokens=tokens,
        data=str(tokens.path / "train.parquet"),
        model=str(model),
        model_name="base",
        model_revision=None,
        parent=os.getpid(),
    )


def train_here(
    workdir: Path,
    tokens: TokenizedDataset,
    config: TrainingConfig = CONFIG,
    plan: Plan = PLAN,
    model: Path = SMALL_MODEL,
) -> Any:
    """What the training process does, in this one: saves starting it. Returns its records, its adapter, and
    the step that it continued from."""
    from tasks.training.job import train

    workdir.mkdir(exist_ok=True)
    told: dict[str, Any] = {}
    sender: Any = SimpleNamespace(send=lambda kind, **content: told.update({kind: content}))
    going_on: Any = SimpleNamespace(requested=False, training=False)
    file = tokens.path / "train.parquet"
    rows = set_aside(file, config.validation, config.seed)
    sequences = arranged(file, rows, tokens.max_length if config.packing else None)
    config = config.counted(len(sequences), tokens.train.tokens)
    assert train(spec(tokens, config, plan, model), workdir, sender, going_on)
    handle = told["result"]["handle"]
    said = {name: handle[name] for name in ("resumed_from", "validation", "stopped_early")}
    return SimpleNamespace(metrics=metrics(workdir), adapter=adapter(workdir), **said)


def stopped_and_resumed(
    workdir: Path,
    tokens: TokenizedDataset,
    config: TrainingConfig,
    plan: Plan,
    *,
    after: int,
    model: Path = SMALL_MODEL,
) -> None:
    """As `train_here`, asked to stop at the end of a step, as SIGTERM does; then to the end."""
    from tasks.training.job import train

    class StopAfter:
        training, left = False, after

        @property
        def requested(self) -> bool:
            self.left -= 1
            return self.left <= 0

    workdir.mkdir(exist_ok=True)
    told, nobody = spec(tokens, config, plan, model), Sender(os.open(os.devnull, os.O_WRONLY))
    asks, going_on = cast("Any", StopAfter()), cast("Any", SimpleNamespace(requested=False, training=False))
    # nothing to resume where training ended earlier by itself
    assert train(told, workdir, nobody, asks) or train(told, workdir, nobody, going_on)


def metrics(workdir: Path) -> dict[str, list[Any]]:
    """Columns of `metrics.parquet`."""
    columns: dict[str, list[Any]] = pq.read_table(_results(workdir) / "metrics.parquet").to_pydict()
    return columns


def adapter(workdir: Path) -> dict[str, Any]:
    """The trained weights by name."""
    from safetensors.torch import load_file

    weights: dict[str, Any] = load_file(_results(workdir) / "adapter" / "adapter_model.safetensors")
    return weights


def digest(workdir: Path) -> str:
    """sha256 of the adapter's weights."""
    return hashlib.sha256((_results(workdir) / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def handed_over(workdir: Path) -> Checkpoint:
    """What `train_here` left, as the stage hands it over; its sums are made up."""
    sums = {
        "steps": 2,
        "tokens": 512,
        "first_loss": 2.0,
        "last_loss": 1.5,
        "step_seconds": 0.1,
        "tokens_per_second": 9.0,
    }
    sizes = {"trainable_parameters": 100, "total_parameters": 1000, "peak_memory_gib": 0.5}
    return Checkpoint.model_validate({"path": _results(workdir), **sums, **sizes})


def _results(folder: Path) -> Path:
    """Within a work directory, or the folder itself when that is where the results are."""
    return folder / RESULT if (folder / RESULT).exists() else folder


def workers(parent: int | None = None) -> list[psutil.Process]:
    """The training processes of a process, also those that a launcher started."""
    return [one for one in psutil.Process(parent).children(recursive=True) if is_running(one, "tasks.training.worker")]


def is_running(process: psutil.Process, command: str) -> bool:
    """Whether a process was started with these words, one argument or several, and has not ended."""
    with suppress(psutil.Error):
        return f" {command} " in " ".join(["", *process.cmdline(), ""])
    return False
