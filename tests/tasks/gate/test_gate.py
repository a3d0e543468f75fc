"""What is promoted and what is held, by figures and against the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts.registry import Registry, now
from artifacts.schema import Metric, Question
from artifacts.verdicts import Candidate, Event, GateDecision, Ruling
from tasks.gate import GateConfig, promotion, results
from tasks.gate.config import ASKED
from tasks.gate.results import Result
from tasks.gate.stage import decide, judge
from tasks.gate.view import sections

CONFIG = GateConfig()
SPECIFIC = "was not required"


def metric(name: str = "loss", low: float | None = -0.03, high: float | None = -0.01, **changes: Any) -> Metric:
    settings = {
        "question": "retention"
        if name.endswith("_pass")
        else {"retention": "retention", "specific": "specific"}.get(name.partition("_")[0], "improved"),
        "better": "lower" if name.endswith("loss") else "higher",
        "margin": None if name.startswith("specific") else 0.05,
        "difference": -0.02,
    }
    return Metric(
        name=name,
        title=name,
        base=2.0,
        tuned=1.98,
        low=low,
        high=high,
        items=100,
        clusters=20,
        **(settings | changes),
    )


def decided(*metrics: Metric, config: GateConfig = CONFIG) -> tuple[str, str]:
    ruling, reasons = decide([judge(one, config) for one in metrics], config)
    return ruling, " ".join(reasons)


def test_what_was_learned_and_kept_is_promoted() -> None:
    retention = metric("retention_loss", -0.01, 0.04), metric("humaneval_pass", -0.03, 0.03)
    ruling, reasons = decided(metric(), metric("specific_loss"), *retention)
    assert ruling == "promote" and "learned this code" in reasons and ASKED["retention"] in reasons


@pytest.mark.parametrize(
    ("metrics", "question", "said"),
    [
        ([metric("loss", -0.03, 0.01), metric("retention_loss", -0.01, 0.01)], "improved", "loss: non-inferior"),
        (
            [metric(), metric("specific_loss", -0.03, 0.01), metric("retention_loss")],
            "specific",
            "specific_loss: inconclusive",
        ),
        ([metric(), metric("specific_loss", 0.01, 0.03), metric("retention_loss")], "specific", "specific_loss: regre"),
        ([metric(), metric("retention_loss")], "specific", "not measured"),
        ([metric(), metric("retention_loss", -0.01, 0.06)], "retention", "retention_loss: inconclusive"),
        ([metric(), metric("retention_loss"), metric("mbpp_pass", -0.1, -0.06)], "retention", "mbpp_pass: regressed"),
        ([metric()], "retention", "not measured"),
        ([metric("loss", None, None), metric("retention_loss")], "improved", "loss: inconclusive"),
        ([metric("loss", None, None), metric("retention_loss")], "improved", "−0.0200 (too few repositories"),
        ([metric(), metric("retention_loss"), metric("line_exact_match", -0.2, -0.1)], None, "line_exact_match regr"),
    ],
)
def test_what_holds_a_model_is_said(metrics: list[Metric], question: Question | None, said: str) -> None:
    """A question that is not answered with yes, or what regressed besides."""
    ruling, reasons = decide([judge(one, CONFIG) for one in metrics], CONFIG)
    assert ruling == "hold" and any((ASKED[question] if question else "") in one and said in one for one in reasons)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "(not measured)"),
        ([metric("specific_loss")], "(improved)"),
        ([metric("specific_loss", -0.03, 0.01)], "(inconclusive)"),
        ([metric("specific_loss", 0.01, 0.03), metric("specific_line_exact_match", -0.2, -0.1)], "(regressed)"),
    ],
)
def test_what_is_not_required_to_be_specific_is_said(found: list[Metric], said: str) -> None:
    """It is no reason against a model, nor may it be said that it learned this code."""
    config = GateConfig(requires=("improved", "retention"))
    ruling, reasons = decided(metric(), *found, metric("retention_loss"), config=config)
    assert ruling == "promote" and reasons.endswith(f"{SPECIFIC} {said}.") and "learned" not in reasons
    assert SPECIFIC in decided(metric("loss", -0.03, 0.01), config=config)[1]


def test_figures_of_what_is_specific_object_to_nothing() -> None:
    asked = metric(), metric("specific_loss"), metric("retention_loss")
    assert decided(*asked, metric("specific_line_exact_match", -0.2, -0.1))[0] == "promote"


def test_what_is_not_required_may_be_missing_but_not_worse() -> None:
    config = GateConfig(requires=("improved",))
    assert decided(metric(), config=config)[0] == "promote"
    assert decided(metric(), metric("retention_loss", 0.06, 0.09), config=config)[0] == "hold"


# --- against the champion


def made(shift: float, items: range = range(40)) -> list[Result]:
    """Losses of a model that is worse by `shift` nats than one that improves the base by 0.1."""
    noise = np.random.default_rng(0).normal(0, 0.02, 100)
    return [Result("loss", f"i{n}", f"r{n % 10}", 100.0, 2.0, 1.9 + shift * (1 + noise[n])) for n in items]


def settle(
    registry: Registry,
    folder: Path,
    name: str,
    found: list[Result],
    margin: float | None = 0.05,
    *,
    figures: tuple[Metric, ...] = (),
    ruling: Ruling = "promote",
    config: GateConfig = CONFIG,
) -> Event:
    """A run's last step, for a model that the gate would promote."""
    workdir = folder / name
    workdir.mkdir()
    results.write(found, workdir / "results.parquet")
    figures = figures or (metric(margin=margin),)
    judgements = tuple(judge(one, config) for one in figures)
    decision = GateDecision(path=workdir, ruling=ruling, reasons=("Good.",), judgements=judgements)
    candidate = Candidate(
        id=name * 12,
        model=f"exporting/{name}",
        fingerprint=name,
        recipe="",
        decision=decision,
        report="",
        recorded=now(),
    )
    return promotion.settle(registry, candidate, config, figures)


@pytest.mark.parametrize(
    ("shift", "margin", "kind", "figures"),
    [
        (-0.02, 0.0, "promote", ("loss: improved", "1.9000 → 1.8")),
        (0.02, 0.05, "promote", ("loss: non-inferior",)),
        (0.02, 0.0, "hold", ("loss: regressed",)),
        (0.08, 0.05, "hold", ("loss: regressed",)),
        (0.02, None, "promote", ("loss: non-inferior", "1.9000 → 1.9200", "[+0.0199, +0.0201]", "margin 0.025.")),
        (0.03, None, "hold", ("loss: regressed",)),  # 0.1 was gained, a quarter of it may be lost
    ],
)
def test_a_challenger_must_not_be_worse(
    tmp_path: Path, shift: float, margin: float | None, kind: str, figures: tuple[str, ...]
) -> None:
    registry = Registry(tmp_path / "registry")
    assert settle(registry, tmp_path, "a", made(0.0)).version == 1
    event = settle(registry, tmp_path, "b", made(shift), margin)
    assert event.kind == kind and all(figure in event.reasons[2] for figure in figures)
    assert ", v1." in event.reasons[1]
    champion = registry.champion()
    assert champion and champion.number == (2 if kind == "promote" else 1)


def test_the_champion_is_asked_for_both_parts_of_what_is_specific_alone(tmp_path: Path) -> None:
    """Neither has results of its own; the earlier champion was not even asked for it."""
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    event = settle(registry, tmp_path, "b", made(-0.02), figures=(metric(), metric("specific_loss")))
    assert (event.kind, event.version) == ("promote", 2) and "specific_loss" not in " ".join(event.reasons)


def test_where_what_is_specific_alone_decides_its_parts_are_compared(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    config = GateConfig(decided_by=("specific_*",))
    worse = settle(registry, tmp_path, "b", made(0.08), figures=(metric(), metric("specific_loss")), config=config)
    assert worse.kind == "hold" and "loss: regressed" in " ".join(worse.reasons)


def test_other_items_cannot_be_compared(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    event = settle(registry, tmp_path, "b", made(-0.1, range(10, 50)))
    assert event.kind == "hold" and "champion, v1:" in event.reasons[1]
    assert "loss: 30 of 40" in event.reasons[1] and "`codetune promote`" in event.reasons[1]


def test_results_are_those_of_the_evaluation(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "losses": [{"repo": "r", "path": "a.py", "chunk": 0, "tokens": 10, "base": 20.0, "again": 20.5, "tuned": 19.0}],
        "completions": [{"suite": "line", "item": 4, "repo": "r", "prompt": "x", "base": "1", "tuned": "2"}],
        "scores": [{"suite": "line", "item": 4, "repo": "r", "score": "exact_match", "base": 0.0, "tuned": 1.0}],
    }
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
    line, loss = results.gather([tmp_path])
    assert (loss.metric, loss.weight, loss.base, loss.tuned) == ("loss", 10, 2.0, 1.9)
    assert (line.metric, line.cluster, line.base, line.tuned) == ("line_exact_match", "r", 0.0, 1.0)
    rows["completions"][0] |= {"tuned": "3", "item": 5}  # another answer to the same question
    rows["scores"][0] |= {"item": 5}
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
    assert results.gather([tmp_path])[0].item == line.item


def test_outcomes_have_wilson_and_mcnemar_beside_them() -> None:
    outcomes = [(1.0, 0.0)] * 5 + [(0.0, 1.0)] + [(1.0, 1.0)] * 10
    found = [Result("mbpp_pass", f"i{n}", f"r{n}", 1.0, *pair) for n, pair in enumerate(outcomes)]
    said = judge(metric("mbpp_pass", -0.5, 0.1, minimum_detectable_effect=0.4), CONFIG, found).beside
    assert said.split("; ") == [
        "minimum detectable effect 0.4000",
        "base 15 of 16 [71.7%, 98.9%]",
        "tuned 11 of 16 [44.4%, 85.8%]",
        "1 gained, 5 lost, McNemar p = 0.22",
    ]


def test_the_decision_is_shown() -> None:
    ruling, reasons = decide([judge(metric(), CONFIG)], CONFIG)
    (section,) = sections(GateDecision(ruling=ruling, reasons=reasons, judgements=(judge(metric(), CONFIG),)))
    text, table = section.blocks
    assert "**hold**" in text.markdown and table.rows[0][2] == "improved"  # type: ignore[union-attr]
