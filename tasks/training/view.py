"""What there is to see of a training: the loss, how it was driven, what it took."""

from __future__ import annotations

from typing import Any

from artifacts import figures
from artifacts.escaping import quoted
from artifacts.presentation import Figure, Section, Table, Text
from artifacts.schema import Checkpoint, ValidationResult

Columns = dict[str, Any]

_PANELS = {
    "learning_rate": ("Learning rate", "× 10⁻⁴", 1e4),
    "grad_norm": ("Gradient norm before clipping", "", 1.0),
    "tokens_per_second": ("Tokens per second", "", 1.0),
    "memory_gib": ("Memory of the process", "GiB", 1.0),
    "gpu_power_w": ("GPU power", "W", 1.0),
    "gpu_temperature_c": ("GPU temperature", "°C", 1.0),
}
"""Title, unit and factor of each small figure, by column."""

NOISE = "Every step learns from other text, so this loss jumps about; what came of it is judged on held-out text."


def sections(checkpoint: Checkpoint) -> list[Section]:
    """Loss curve, small multiples of what drove it and what it took, and a table of the figures."""
    import pyarrow.parquet as pq

    table = pq.read_table(checkpoint.path / "metrics.parquet")
    columns: Columns = {name: table[name].to_numpy() for name in table.column_names}
    share = checkpoint.trainable_parameters / checkpoint.total_parameters
    seen = f" ({checkpoint.share_seen})" if checkpoint.share_seen else ""
    text = (
        f"**{checkpoint.steps:,} steps** on {checkpoint.tokens:,} tokens{seen}; "
        f"training loss {checkpoint.first_loss:.3f} → "
        f"**{checkpoint.last_loss:.3f}** nats per token (means of the first and the last tenth). "
        f"{checkpoint.trainable_parameters:,} weights were trained, {share:.2%} of {checkpoint.total_parameters:,}."
    )
    if checkpoint.validation is not None:
        text += validated(checkpoint.validation)
    if checkpoint.stopped_early:
        text += " Training ended early, because the loss on validation text fell no further."
    if checkpoint.resumed_from is not None:
        text += f" The run was interrupted and continued from step {checkpoint.resumed_from}."
    text += "".join(f" {quoted(fallback.capitalize())}." for fallback in checkpoint.fallbacks)
    blocks = (
        Text(text),
        Figure(_loss_curve(columns), "svg", f"training loss per step, ends at {checkpoint.last_loss:.3f}", NOISE),
        Figure(_small_multiples(columns), "svg", "learning rate, gradient norm, speed and memory over the steps"),
        _table(checkpoint),
        *((_scales(checkpoint.validation),) if checkpoint.validation else ()),
    )
    return [Section("training", "Training", blocks)]


def validated(found: ValidationResult) -> str:
    """The loss on validation text, and which weights were kept, in a sentence or two."""
    before = "" if found.loss_before is None else f"{found.loss_before:.3f} → "
    text = (
        f" On {found.sequences:,} chunks of {found.units:,} {found.unit} set aside for validation the loss went "
        f"{before}**{found.kept_loss:.3f}** at step {found.kept_step:,}, whose weights are handed over."
    )
    if found.last_step != found.kept_step:
        text += f" At the last step it was {found.last_loss:.3f}."
    return text


def _scales(found: ValidationResult) -> Table:
    rows = tuple((f"{one.scale:.1f}", f"{one.loss:.4f}") for one in found.scaled)
    return Table(("adapter weight", "validation loss, nats per token"), rows)


def _loss_curve(columns: Columns) -> bytes:
    steps, loss = columns["step"], columns["loss"]
    with figures.drawing(7.2, 3.0) as figure:
        axes = figure.subplots()
        axes.plot(steps, loss, color=figures.BASE, linewidth=0.8, alpha=0.8, label="each step")
        axes.plot(steps, _smoothed(loss), color=figures.TUNED, linewidth=2.0, label="smoothed")
        if "validation_loss" in columns:
            known = columns["validation_loss"] == columns["validation_loss"]  # not a number where it is null
            measured = columns["validation_loss"][known]
            axes.plot(steps[known], measured, marker="o", markersize=4, color=figures.ACCENT, label="validation")
        axes.set(title="Training loss", xlabel="optimizer step", ylabel="nats per token")
        axes.margins(x=0.01)
        axes.legend(loc="upper right", ncols=3)
        return figures.to_svg(figure)


def _small_multiples(columns: Columns) -> bytes:
    names = [name for name in _PANELS if name in columns]
    rows = -(-len(names) // 2)
    with figures.drawing(7.2, 1.7 * rows) as figure:
        grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
        for axes, name in zip(grid.flat, names, strict=False):
            title, unit, factor = _PANELS[name]
            axes.plot(columns["step"], columns[name] * factor, color=figures.TUNED, linewidth=1.2)
            axes.set(title=title, ylabel=unit)
            axes.margins(x=0.01, y=0.15)
            axes.set_ylim(bottom=0)
        for axes in list(grid.flat)[len(names) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")
        return figures.to_svg(figure)


def _smoothed(values: Any) -> Any:
    """A centred running mean over about a tenth of the steps, cut off at the ends."""
    import numpy as np

    half = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def _table(checkpoint: Checkpoint) -> Table:
    rows = (
        ("Optimizer steps", f"{checkpoint.steps:,}"),
        ("Tokens trained on, padding not counted", f"{checkpoint.tokens:,}"),
        ("One step, median", f"{checkpoint.step_seconds:.3f} s"),
        ("Tokens per second, median", f"{checkpoint.tokens_per_second:,.0f}"),
        ("Peak memory of the process", f"{checkpoint.peak_memory_gib:.2f} GiB"),
        ("Trained weights", f"{checkpoint.trainable_parameters:,}"),
    )
    return Table(("", ""), rows)
