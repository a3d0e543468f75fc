"""From generations to verdicts, without a model."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.presentation import Block, Code, Figure, Table, to_markdown
from artifacts.schema import EvaluationReport, ExportedModel, Generations
from artifacts.store import Store
from tasks.evaluation import STAGE, EvaluationConfig, run_evaluation
from tasks.evaluation.config import Margins
from tasks.evaluation.samples import choose
from tests.tasks.generation import world


def judge(generations: Generations, workdir: Path, **changes: Any) -> EvaluationReport:
    workdir.mkdir(exist_ok=True)
    config = EvaluationConfig(**{"resamples": 2000, "samples": 6, **changes})
    return run_evaluation(config, generations=generations, workdir=workdir)


@pytest.fixture(scope="module")
def report(good: Generations, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    return judge(good, tmp_path_factory.mktemp("judged"))


def test_an_adapter_that_knows_the_text_has_learned(report: EvaluationReport) -> None:
    verdicts = {metric.name: metric.verdict for metric in report.metrics if metric.question == "improved"}
    learned = ("loss", "perplexity", "line_exact_match", "line_edit_similarity")
    assert {name: verdicts[name] for name in learned} == dict.fromkeys(learned, "improved")
    assert report.metric("loss").difference < -0.5 and report.metric("line_exact_match").tuned > 0.3
    assert report.metric("line_exact_match").items == 16 and report.metric("loss").clusters == 8


def test_what_it_forgot_is_seen(report: EvaluationReport) -> None:
    assert report.metric("retention_loss").verdict == "regressed" and report.metric("retention_loss").difference > 0.05
    assert {metric.name for metric in report.metrics if metric.question == "retention"} >= {
        "retention_loss",
        "retention_line_exact_match",
        "retention_block_exact_match",
    }


def test_a_wider_margin_judges_otherwise_from_the_same_files(good: Generations, tmp_path: Path) -> None:
    assert judge(good, tmp_path, margins=Margins(loss=10)).metric("retention_loss").verdict == "non-inferior"


def test_an_adapter_of_noise_is_worse(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    settings = {"line_prompts": 0, "fim_prompts": 0, "block_prompts": 0}
    report = judge(world.generate(small_world, noise, tmp_path / "made", **settings), tmp_path)
    assert report.metric("loss").verdict == report.metric("retention_loss").verdict == "regressed"
    names = ["loss", "perplexity", "retention_loss", "retention_perplexity", "specific_loss"]
    assert [metric.name for metric in report.metrics] == names
    assert "prompts.fim_prompts is 0" in " ".join(report.notes)


def test_figures_follow_from_the_files(good: Generations, report: EvaluationReport) -> None:
    losses, answers = (pq.read_table(good.path / f"{name}.parquet").to_pylist() for name in ("losses", "completions"))
    own = [row for row in losses if row["domain"] == "held_out"]
    assert report.metric("loss").tuned == pytest.approx(
        sum(row["tuned"] for row in own) / sum(row["tokens"] for row in own)
    )
    lines = [row for row in answers if (row["domain"], row["suite"]) == ("held_out", "line")]
    right = sum(row["tuned"].rstrip() == row["truth"] for row in lines)
    assert report.metric("line_exact_match").tuned == right / 16
    assert len(pq.read_table(report.path / "scores.parquet")) == 2 * (2 * 16 + 8 + 4)


def test_scoring_loads_no_model(good: Generations, tmp_path: Path) -> None:
    """A process that judges has not imported torch when it is done."""
    import subprocess

    program = (
        "import sys; from pathlib import Path; from artifacts.schema import Generations\n"
        "from tasks.evaluation import EvaluationConfig, run_evaluation\n"
        "made = Generations.model_validate_json(sys.argv[1]).model_copy(update={'path': Path(sys.argv[2])})\n"
        "run_evaluation(EvaluationConfig(resamples=2000), generations=made, workdir=Path(sys.argv[3]))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    command = [sys.executable, "-c", program, good.model_dump_json(), str(good.path), str(tmp_path)]
    subprocess.run(command, check=True)


def test_the_handle_survives_the_store(report: EvaluationReport, store: Store) -> None:
    workdir = store.workdir("evaluation", "k")
    for file in report.path.iterdir():
        (workdir / file.name).write_bytes(file.read_bytes())
    published = store.publish("evaluation", "k", report, workdir)
    assert store.find("evaluation", "k", EvaluationReport) == published


def test_samples_are_the_best_the_worst_and_random_ones(report: EvaluationReport) -> None:
    gains = [(one.tuned_score or 0) - (one.base_score or 0) for one in report.samples]
    assert [one.chosen for one in report.samples] == ["best"] * 2 + ["worst"] * 2 + ["random"] * 2
    assert gains[0] >= gains[1] > 0 > gains[3] >= gains[2]


def test_where_similarity_ties_the_exact_answer_is_the_better_one() -> None:
    texts = dict.fromkeys(("repo", "path", "prompt", "suffix"), "")
    row = {"domain": "held_out", "suite": "line", "truth": "    x = 1", **texts}
    answers = [("x = 1", "    x = 1"), ("y = 1", "y = 1"), ("    x = 1", "x = 1")]
    rows = [{**row, "item": item, "base": base, "tuned": tuned} for item, (base, tuned) in enumerate(answers)]
    shown = choose(rows, {}, 3, random.Random(0))
    assert [(one.chosen, one.base, one.tuned) for one in shown] == [
        ("best", "x = 1", "    x = 1"),
        ("worst", "    x = 1", "x = 1"),
        ("random", "y = 1", "y = 1"),
    ]


@pytest.fixture(scope="module")
def shown(report: EvaluationReport) -> dict[str, tuple[Block, ...]]:
    return {section.key: section.blocks for section in STAGE.show(report)}


def test_every_figure_by_repository(report: EvaluationReport, shown: dict[str, tuple[Block, ...]]) -> None:
    (own,), (retention,) = shown["repositories"], shown["retention-repositories"]
    assert isinstance(own, Table) and isinstance(retention, Table)
    asked = ("line_exact_match", "line_edit_similarity", "fim_exact_match", "block_exact_match")
    called = {metric.name: metric.title.partition(": ")[2] for metric in report.metrics}
    assert own.columns[2:] == ("loss, base", "tuned", "difference", *(called[name] for name in asked))
    assert {row[0] for row in own.rows} == set(world.NAMES) and retention.columns == own.columns
    line = next(row for row in report.breakdowns if row.metric == "line_exact_match" and row.name == own.rows[0][0])
    assert own.rows[0][5] == f"{line.base:.1%} → {line.tuned:.1%}"


def test_what_there_is_to_see(shown: dict[str, tuple[Block, ...]]) -> None:
    own, retention = shown["held-out"][0], shown["retention"][0]
    assert isinstance(own, Table) and own.rows[0][1] == "improved"
    assert isinstance(retention, Table) and (retention.rows[0][6][:4], retention.rows[0][1]) == ("0.05", "regressed")
    forest, against = shown["differences"]
    assert isinstance(forest, Figure) and b"<svg" in forest.image and "Held-out loss" in forest.alt
    assert isinstance(against, Figure) and b"<svg" in against.image
    noise, languages = shown["noise"][0], shown["languages"][0]
    assert isinstance(noise, Table) and {row[2] for row in noise.rows} == {"0"}
    assert isinstance(languages, Table) and languages.rows[0][0] == "Python"
    text = shown["completions"][1]
    assert isinstance(text, Code) and "tuned │ " in to_markdown(text)
