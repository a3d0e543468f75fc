"""Settings of the training stage. The defaults are the reference job."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from artifacts.configuration import NUMBER, Batch, Config, Real, Seed, Steps, Threads, Unkeyed, Whole
from artifacts.errors import InputError
from artifacts.schema import Products, Quantization
from tasks.backends import BackendName
from tasks.families import EMBEDDINGS
from tasks.models.shape import ALL_LINEAR

Tracker = Literal["tensorboard", "wandb", "mlflow"]

EPOCHS = ((500_000, 10), (2_000_000, 5))
"""Epochs below so many training tokens; with more, `FEWEST_EPOCHS`. Three are measured: over 2.6 million tokens ten
made a model forget (`bench.own_code`). Refact's trainer for code bases takes 50, 35, 20 and 10 before it comes to
three."""
FEWEST_EPOCHS = 3


class LoraSettings(Config):
    """Low-rank adapters: the only weights that are trained."""

    r: Whole = Field(8, ge=1, le=1024)
    """Rank of the two small matrices beside every adapted layer."""
    alpha: Whole = Field(16, ge=1, le=65_536)
    """The adapter's output is scaled by alpha / r."""
    dropout: Real = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped in training; little use in runs that see each text once."""
    target_modules: tuple[Annotated[str, Field(min_length=1)], ...] = Field(("q_proj", "v_proj"), min_length=1)
    """Names of the linear layers that get an adapter, or ends of their dotted names (`self_attn.q_proj`);
    `[all-linear]`, alone, for all of them but the output layer."""

    @field_validator("target_modules")
    @classmethod
    def _adaptable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        others = sorted(set(names) - {ALL_LINEAR})
        if ALL_LINEAR in names and others:
            raise ValueError(
                f"{ALL_LINEAR} stands for every linear layer; leave out {', '.join(others)}, or leave out {ALL_LINEAR}"
            )
        if apart := [name for name in others if name.rpartition(".")[2] in EMBEDDINGS]:
            raise ValueError(
                f"an adapter on {', '.join(apart)} cannot be trained; name attention or MLP layers instead"
            )
        return tuple(sorted(set(names)))


class ValidationSettings(Config):
    """Training text that is set aside, and what the loss on it decides."""

    share: Annotated[float, Field(gt=0, le=0.5), NUMBER] = 0.05
    """Share of the training chunks that is set aside at most: whole repositories where there are 20, else whole
    files."""
    sequences: Batch = 64
    """Most chunks that are set aside: what each measurement computes."""
    steps: Steps = 50
    """Optimizer steps between two measurements. The last step is followed by one, too."""
    patience: Annotated[int, Field(ge=1, le=10_000), NUMBER] | None = None
    """Training ends when so many measurements in a row were no better than the best. None: it goes on."""
    keep: Literal["best", "last"] = "best"
    """Which weights are handed over: those with the lowest loss measured, or the last."""


class TrainingConfig(Config):
    """How the adapter is trained."""

    quantization: Quantization = "int8"
    """What the frozen base weights are kept in: `int8` (LLM.int8), `nf4` (4 bits), or `none`."""
    lora: LoraSettings = Field(default_factory=LoraSettings)
    """The adapter."""
    effective_batch: Batch = 4
    """Sequences in one optimizer step."""
    micro_batch: Annotated[Batch, Field(strict=True)] | Literal["auto"] = Unkeyed("auto")
    """Sequences in one forward pass; it must divide the effective batch. `auto`: preflight decides. When memory runs
    out all the same, training continues with fewer."""
    gradient_checkpointing: bool | Literal["auto"] = Unkeyed("auto")
    """Compute activations twice to save memory. `auto`: preflight decides."""
    processes: Annotated[Threads, Field(strict=True)] | Literal["auto"] = Unkeyed(1)
    """Processes that train together, each on a GPU of its own (on a CPU, with `cpu_threads` threads each) and on its
    share of every batch: they must divide the effective batch. `auto`: as many visible GPUs as divide it."""
    backend: BackendName = Unkeyed("auto")
    """What computes: a backend by its name. `auto`: preflight takes the fastest that can do the job."""
    products: Products | Literal["auto"] = Unkeyed("fp16")
    """What the products of frozen layers run on: `fp16`, or `int8` tensor cores, on which they take less time and
    energy (backend `fused`, weights in int8). `auto`: int8 on a GPU, where model and base allow it."""
    learning_rate: Real = Field(2e-4, ge=1e-9, le=1)
    """Highest learning rate, reached after the warm-up."""
    max_steps: Steps | None = 200
    """Optimizer steps in all; without any `epochs` counts."""
    epochs: Annotated[float, Field(gt=0, le=10_000), NUMBER] | Literal["auto"] | None = None
    """Passes over the training data, counted in steps once the text is tokenized. `auto`: from 10 with little text down
    to 3 with much. Set without `max_steps` it takes its place; set with it, what is less counts."""
    warmup_steps: Whole = Field(10, ge=0, le=10_000_000)
    """Optimizer steps in which the learning rate rises from zero; fewer than `max_steps`. With `epochs` at most a tenth
    of the steps."""
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How the learning rate falls after the warm-up."""
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    """The optimizer, by transformers' name."""
    weight_decay: Real = Field(0.0, ge=0, le=1)
    """Weight decay of the adapter's weights."""
    max_grad_norm: Real = Field(1.0, ge=1e-3, le=1e6)
    """Gradients are scaled down to this norm."""
    packing: bool = False
    """Put several short chunks into one sequence, each of which sees itself alone. Steps then take more text, and no
    time goes into padding."""
    validation: ValidationSettings | None = None
    """The loss on training text that is set aside, measured while training. None: all of it is learned from."""
    seed: Seed = 42
    """Decides the order of the chunks, the first weights of the adapter and dropout."""
    cpu_threads: Threads = 2
    """Threads of arithmetic on a CPU. Sums depend on how work is divided, so this decides bits."""
    save_steps: Steps = Unkeyed(100)
    """Optimizer steps between checkpoints: what a killed run may lose."""
    trackers: tuple[Tracker, ...] = Unkeyed(("tensorboard",))
    """Who is told about every step. `wandb` and `mlflow` need their package and their own settings."""
    grace_seconds: Real = Unkeyed(60.0, ge=0, le=86_400)
    """How long a cancelled run may take to write its checkpoint before it is killed."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_count(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("epochs") is not None and "max_steps" not in settings:
            return {**settings, "max_steps": None}
        return settings

    @model_validator(mode="after")
    def _learns(self) -> TrainingConfig:
        if self.max_steps is None and self.epochs is None:
            raise ValueError("neither max_steps nor epochs says how long to train; set one of them")
        if self.max_steps is not None and self.epochs is None and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leaves nothing of max_steps {self.max_steps} to learn in; "
                f"set warmup_steps to {self.max_steps // 10} or so"
            )
        return self

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes, without those that are not in use."""
        values = super().keyed()
        if not self.packing:
            del values["packing"]
        if self.epochs == "auto":
            values["epochs"] = [*EPOCHS, FEWEST_EPOCHS]
        return {name: value for name, value in values.items() if value is not None}

    @property
    def steps(self) -> int:
        """Optimizer steps, once `counted` has made them known."""
        assert self.max_steps is not None
        return self.max_steps

    def counted(self, sequences: int, tokens: int) -> TrainingConfig:
        """The same in steps, for so many training sequences with so many tokens in all."""
        if self.epochs is None:
            return self
        counted = max(1, ceil(self.passes(tokens) * sequences / self.effective_batch))
        steps = min(counted, self.max_steps or counted)
        return self.model_copy(
            update={"max_steps": steps, "epochs": None, "warmup_steps": min(self.warmup_steps, steps // 10)}
        )

    def passes(self, tokens: int) -> float:
        """The epochs that are set, or that so many training tokens are worth."""
        if isinstance(self.epochs, float):
            return self.epochs
        return next((epochs for most, epochs in EPOCHS if tokens < most), FEWEST_EPOCHS)

    def within(self, steps: int | None) -> TrainingConfig:
        """The same in so many optimizer steps at most, which is what a time budget has room for; None: in all."""
        if steps is None or (self.max_steps is not None and steps >= self.max_steps):
            return self
        return self.model_copy(update={"max_steps": steps, "warmup_steps": min(self.warmup_steps, steps // 10)})

    def check(self) -> None:
        """Raises InputError where a tracker's package is not installed: it would be missed after the download."""
        for tracker in self.trackers:
            try:
                distribution(tracker)
            except PackageNotFoundError as error:
                raise InputError(
                    f"the tracker {tracker} needs the package {tracker}, which is not installed",
                    field="training.trackers",
                    remedy=f"pip install {tracker}, or leave it out",
                ) from error

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingConfig:
        processes = self.processes if isinstance(self.processes, int) else 1
        if self.effective_batch % processes:
            raise ValueError(f"processes {processes} does not divide effective_batch {self.effective_batch}")
        share = self.effective_batch // processes
        if isinstance(self.micro_batch, int) and share % self.micro_batch:
            each = f" over {processes} processes" if processes > 1 else ""
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide effective_batch {self.effective_batch}{each}; "
                "choose a divisor, or auto"
            )
        return self
