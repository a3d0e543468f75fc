"""The rows as a table and as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import fmean
from typing import Any

from bench.own_code.rows import CHAINS


def table(record: dict[str, Any]) -> str:
    """The rows in Markdown, by model: what was learned, then what was kept; of several seeds the mean, with the lowest
    and the highest."""
    lines = []
    for model in CHAINS:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in record["rows"]:
            if row["model"] == model and "failed" not in row:
                found[row["words"]].append(row)
        for columns in (LEARNED, KEPT) if found else ():
            names = [name for name in columns if model == "built-in" or name not in MIDDLE]
            lines += [f"\n{model}\n", "| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
            for words, rows in found.items():
                lines.append(" | ".join([f"| {words}", *(columns[name](rows) for name in names)]) + " |")
    return "\n".join(lines)


Rows = list[dict[str, Any]]
"""Those of a row with several seeds."""


def _change(name: str, form: str, where: str = "metrics") -> Callable[[Rows], str]:
    """A metric's mean, base and tuned, with the verdict where it is not better."""

    def cell(rows: Rows) -> str:
        metrics = [row[where][name] for row in rows if name in row[where]]
        if not metrics:
            return ""
        base, tuned = (fmean(one[side] for one in metrics) for side in ("base", "tuned"))
        verdict = metrics[0]["verdict"]
        return f"{base:{form}} → {tuned:{form}}" + (f", {verdict}" if verdict != "improved" else "")

    return cell


def _mean(read: Callable[[dict[str, Any]], float], form: str) -> Callable[[Rows], str]:
    def cell(rows: Rows) -> str:
        values = [read(row) for row in rows]
        least, most = (f"{one:{form}}" for one in (min(values), max(values)))
        return f"{fmean(values):{form}}" + (f" ({least} to {most})" if least != most else "")

    return cell


def _times(rows: Rows) -> str:
    found = rows[0]["ratio"]
    interval = f" [{found['low']:.2f}, {found['high']:.2f}]" if len(rows) == 1 else ""
    return _mean(lambda row: row["ratio"]["ratio"], ".2f")(rows) + interval


MIDDLE = ("exact match, filled in", "the same with other files")
LEARNED: dict[str, Callable[[Rows], str]] = {
    "loss, added lines": _change("loss", ".3f"),
    "exact match": _change("line_exact_match", ".1%"),
    "times the base's": _times,
    "edit similarity": _change("line_edit_similarity", ".3f"),
    MIDDLE[0]: _change("fim_exact_match", ".1%"),
    MIDDLE[1]: _change("context_exact_match", ".1%"),
    "steps": lambda rows: f"{rows[0]['steps']:,}",
    "H200, s": _mean(lambda row: row["steps"] * (row.get("step_seconds") or row["h200_step_seconds"]), ".0f"),
    "T4, min": _mean(lambda row: row["steps"] * row["t4_step_seconds"] / 60, ".1f"),
}
KEPT: dict[str, Callable[[Rows], str]] = {
    "unseen: loss": _change("retention_loss", ".3f", "unseen"),
    "unseen: exact match": _change("retention_line_exact_match", ".1%", "unseen"),
    "unseen: edit similarity": _change("retention_line_edit_similarity", ".3f", "unseen"),
    "elsewhere: loss": _change("retention_loss", ".3f"),
    "elsewhere: exact match": _change("retention_line_exact_match", ".1%"),
    "elsewhere: edit similarity": _change("retention_line_edit_similarity", ".3f"),
    "specific": lambda rows: str(rows[0]["metrics"].get("specific_loss", {}).get("verdict", "")),
    "gate": lambda rows: str(rows[0]["verdict"]),
}


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
