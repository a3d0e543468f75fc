"""The rows as a table and as a picture."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.own_code.rows import CHAINS


def table(record: dict[str, Any]) -> str:
    """The rows in Markdown, by model; of several seeds the mean, with the lowest and the highest."""
    lines = []
    for model in CHAINS:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in record["rows"]:
            if row["model"] == model and "failed" not in row:
                found[row["words"]].append(row)
        if not found:
            continue
        suite = "line" if model == "smollm2" else "fim"
        lines += [f"\n{model}\n", "| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join([words, *_cells(rows, suite)]) + " |" for words, rows in found.items()]
    return "\n".join(lines)


COLUMNS = (
    "each row on top of the ones before",
    "loss, added lines",
    "exact match",
    "times the base's",
    "edit similarity",
    "unseen repositories, loss",
    "elsewhere, loss",
    "specific",
    "steps",
    "H200, s",
    "T4, min",
)


def _cells(rows: list[dict[str, Any]], suite: str) -> list[str]:
    def mean(read: Any, form: str) -> str:
        values = [read(row) for row in rows]
        if any(value is None for value in values):
            return ""
        spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
        return f"{sum(values) / len(values):{form}}{spread}"

    def change(name: str, read: Any, form: str) -> str:
        metrics = [read(row)[name] for row in rows if name in read(row)]
        if not metrics:
            return ""
        verdict = metrics[0]["verdict"].replace("improved", "")
        base = sum(one["base"] for one in metrics) / len(metrics)
        tuned = sum(one["tuned"] for one in metrics) / len(metrics)
        return f"{base:{form}} → {tuned:{form}}" + (f", {verdict}" if verdict else "")

    def times(row: dict[str, Any]) -> float | None:
        metric = row["metrics"].get(f"{suite}_exact_match")
        return metric["tuned"] / metric["base"] if metric and metric["base"] else None

    own, unseen = (lambda row: row["metrics"]), (lambda row: row["unseen"])
    return [
        change("loss", own, ".3f"),
        change(f"{suite}_exact_match", own, ".1%"),
        mean(times, ".2f"),
        change("line_edit_similarity", own, ".3f"),
        change("retention_loss", unseen, ".3f"),
        change("retention_loss", own, ".3f"),
        str(rows[0]["metrics"].get("specific_loss", {}).get("verdict", "")),
        f"{rows[0]['steps']:,}",
        mean(lambda row: row["steps"] * (row.get("step_seconds") or row["h200_step_seconds"]), ".0f"),
        mean(lambda row: row["steps"] * row["t4_step_seconds"] / 60, ".1f"),
    ]


def picture(record: dict[str, Any]) -> bytes:
    """Exact match on added lines by row, base beside tuned, as SVG."""
    from artifacts import figures

    models = {row["model"] for row in record["rows"] if "metrics" in row}
    shown = [(model, suite) for model, suite in (("smollm2", "line"), ("built-in", "fim")) if model in models]
    with figures.drawing(7.2, 2.6 * len(shown)) as figure:
        for axes, (model, suite) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in record["rows"]:
                if row["model"] == model and f"{suite}_exact_match" in row.get("metrics", {}):
                    found[row["row"]].append(row["metrics"][f"{suite}_exact_match"])
            for place, metrics in enumerate(found.values()):
                base = 100 * sum(one["base"] for one in metrics) / len(metrics)
                axes.plot([base, base], [place - 0.3, place + 0.3], color=figures.BASE, linewidth=2)
                for one in metrics:
                    low, high = (100 * (one["base"] + (one[end] or 0)) for end in ("low", "high"))
                    axes.plot([low, high], [place, place], color=figures.TUNED, linewidth=1.2, alpha=0.6)
                    axes.plot([100 * one["tuned"]], [place], "o", color=figures.TUNED, markersize=5)
            axes.set_yticks(range(len(found)), list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            what = "next lines" if suite == "line" else "lines to fill in"
            axes.set_xlabel(f"{model}: {what} that stand in the newer release, %; the bar is the base model")
        return figures.to_svg(figure)
