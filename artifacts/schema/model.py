"""The model on its way: quantized, trained, exported."""

from __future__ import annotations

from typing import ClassVar, Literal

from artifacts.schema.base import Handle, Record


class WeightGroup(Record):
    """Some of a model's tensors, before and after."""

    tensors: int
    parameters: int
    original_bytes: int
    bytes: int
    """In the artifact, scales and other statistics of the quantization included."""


class QuantizedBase(Handle):
    """The base model with quantized linear layers, in the form that `from_pretrained` loads: `config.json` with a
    `quantization_config`, safetensors as bitsandbytes serializes them, tokenizer, generation configuration, licence."""

    quantization: Literal["int8", "nf4"]
    linear: WeightGroup
    """Weights of linear layers: quantized."""
    other: WeightGroup
    """Embeddings, output layer, norms, biases: as published."""

    @property
    def original_bytes(self) -> int:
        return self.linear.original_bytes + self.other.original_bytes

    @property
    def weight_bytes(self) -> int:
        return self.linear.bytes + self.other.bytes

    @property
    def summary(self) -> str:
        sizes = f"{self.original_bytes / 1e6:,.1f} → {self.weight_bytes / 1e6:,.1f} MB"
        return f"{self.linear.tensors} linear layers in {self.quantization}, weights {sizes}"


class ScaledLoss(Record):
    """The loss on validation text with the adapter's effect multiplied."""

    scale: float
    """1 is the adapter as it was trained."""
    loss: float
    """Nats per token."""


class ValidationResult(Record):
    """The loss on training text that was set aside, nats per token, and what was decided by it."""

    sequences: int
    tokens: int
    """Those that are predicted."""
    unit: Literal["repositories", "files"]
    units: int
    """How many of those were set aside."""
    loss_before: float | None
    """Of the base, before the first step."""
    kept_step: int
    """After which the weights were as they are handed over."""
    kept_loss: float
    last_step: int
    last_loss: float
    scaled: tuple[ScaledLoss, ...]
    """For what is handed over, by weight of the adapter."""


class Checkpoint(Handle):
    """`adapter/`: the trained LoRA adapter in PEFT's form (safetensors, fp32); `metrics.parquet`: a row per optimizer
    step: `step, loss, learning_rate, grad_norm, tokens, seconds, tokens_per_second, memory_gib`, on a GPU
    `gpu_temperature_c, gpu_power_w, gpu_utilization`, and with validation `validation_loss`, null where it was not
    measured; `tensorboard/`: the same as event files."""

    measurements: ClassVar[tuple[str, ...]] = ("metrics.parquet", "tensorboard/*", "tensorboard/*/*")

    steps: int
    tokens: int
    """Tokens trained on, padding not counted."""
    tokens_at_hand: int | None = None
    """Of the training data; None in results of an earlier version."""
    first_loss: float
    """Mean training loss of the first tenth of the steps, nats per token."""
    last_loss: float
    """Mean training loss of the last tenth of the steps, nats per token."""
    trainable_parameters: int
    total_parameters: int
    peak_memory_gib: float
    """Highest memory of the training process on the device (GPU memory, or resident memory on a CPU)."""
    step_seconds: float
    """Median wall time of one optimizer step."""
    tokens_per_second: float
    """Median over the steps, padding not counted."""
    resumed_from: int | None = None
    """The step of the checkpoint that the last process started from; None when it started from the beginning."""
    validation: ValidationResult | None = None
    """None without."""
    stopped_early: bool = False
    """Whether the loss on validation text ended it before its last step."""
    fallbacks: tuple[str, ...] = ()
    """Where memory ran out and with what training continued: `out of memory at step 37 with 4 × 1: continued with
    2 × 2`."""

    @property
    def share_seen(self) -> str:
        """`1.5% of the training tokens`, `2.3 times the training tokens`; empty where nothing is known of them."""
        if not self.tokens_at_hand:
            return ""
        times = self.tokens / self.tokens_at_hand
        if times > 1.05:
            return f"{times:.1f} times the training tokens"
        return f"{100 * times:.2g}% of the training tokens" if times < 0.995 else "all training tokens once"

    @property
    def summary(self) -> str:
        seen = f" over {self.share_seen}" if self.share_seen else ""
        found = self.validation
        validated = f"validation {found.kept_loss:.3f} at step {found.kept_step}, " if found else ""
        return (
            f"{self.steps} steps{seen}, loss {self.first_loss:.3f} → {self.last_loss:.3f}, {validated}"
            f"{self.tokens_per_second:,.0f} tokens/s, peak {self.peak_memory_gib:.1f} GiB"
        ) + (f"; {self.fallbacks[-1]}" if self.fallbacks else "")


class Comparison(Record):
    """How far the logits of a reloaded export lie from those of the trained model, on held-out text."""

    against: str
    """What was compared with what, in words."""
    largest_difference: float
    """Largest absolute difference of a logit."""
    bound: float
    """What was allowed."""
    positions: int
    """Token positions compared."""
    exact: bool = True
    """Whether both have the same weights but for rounding to 16 bits."""


class ExportedForm(Record):
    """One form of the trained model."""

    name: str
    """Of the form, and of its folder."""
    bytes: int
    comparison: Comparison


class ExportedModel(Handle):
    """A folder for each form, with a model card: `adapter/`, the LoRA adapter for `peft`, and what else was asked for
    (`merged/`: the whole model in fp16 for `transformers`). `lineage.json` and `sources.parquet`: where it comes from,
    see `artifacts.lineage`."""

    measurements: ClassVar[tuple[str, ...]] = ("lineage.json", "sources.parquet")

    base_model: str
    """The base model as it is loaded: its name on the hub, or a folder."""
    base_revision: str | None = None
    """On the hub: a commit."""
    forms: tuple[ExportedForm, ...]
    """The adapter first."""
    adapter_scale: float = 1.0
    """What the trained adapter's effect is multiplied by."""

    def form(self, name: str) -> ExportedForm | None:
        """The form of this name, if it was written."""
        return next((form for form in self.forms if form.name == name), None)

    @property
    def summary(self) -> str:
        sizes = ", ".join(f"{form.name} {form.bytes / 1e6:,.1f} MB" for form in self.forms)
        furthest = max(form.comparison.largest_difference for form in self.forms if form.comparison.exact)
        weight = "" if self.adapter_scale == 1 else f"adapter weight {self.adapter_scale:g}; "
        return f"{weight}{sizes}; reloaded, logits within {furthest:.1e}"
