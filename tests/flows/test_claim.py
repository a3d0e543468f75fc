"""That the model learned this code is said where it is shown, in every view, and nowhere else."""

from __future__ import annotations

import ast
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.presentation import Figure, Section, to_markdown
from artifacts.progress import Progress
from artifacts.schema import EvaluationReport, Generations, Metric, Question, RunReport
from artifacts.units import UNITS, HeldOutBy
from artifacts.verdicts import Event, GateDecision
from flows import cli
from flows.commands import evaluate, models
from flows.finetune import RunSummary, _overview
from flows.output import Console
from flows.reevaluation import Reevaluation
from flows.terminal import Terminal
from tasks import evaluation, gate, reporting
from tasks.evaluation import EvaluationConfig, run_evaluation
from tasks.exporting.card import EVALUATION
from tasks.gate import GateConfig, promotion, run_gate
from tasks.running.run import Outcome
from tests.tasks import test_reporting as pieces

ROOT = Path(__file__).parents[2]
ALL = GateConfig().requires
CLAIM = "learned this code"


def generations(
    folder: Path, own: float, elsewhere: float | None, repositories: int = 12, held_out_by: HeldOutBy = "repository"
) -> Generations:
    """Every chunk of 100 tokens gains so many nats on held-out code and elsewhere, give or take five; every line of
    held-out code is told by the tuned model alone where it gains."""
    gains = {"held_out": own} if elsewhere is None else {"held_out": own, "retention": elsewhere}
    kinds = [(domain, gain, n) for domain, gain in gains.items() for n in range(24)]
    losses = [
        {
            **{"domain": domain, "repo": f"{domain}{n % repositories}", "path": "a.py", "language": "Python"},
            **{"chunk": n, "tokens": 100, "base": 200.0, "again": 200.0, "tuned": 200.0 - gain + 5 * (-1) ** (n // 3)},
        }
        for domain, gain, n in kinds
    ]
    answers = [
        {
            **{"domain": domain, "suite": "line", "item": item, "repo": f"{domain}{n % repositories}", "path": "a.py"},
            **{"language": "Python", "prompt": f"x{n}\n", "suffix": "", "truth": "y = 1", "base": "z", "again": "z"},
            "tuned": "y = 1" if domain == "held_out" and gain else "z",
        }
        for item, (domain, gain, n) in enumerate(kinds)
    ]
    folder.mkdir()
    for name, rows in (("losses", losses), ("completions", answers)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    counts = {"losses": len(losses), "completions": len(answers)}
    return Generations(path=folder, quantization="none", held_out_by=held_out_by, **counts)


class Judged:
    """A run from what was generated to everything that a person is shown."""

    def __init__(self, made: Generations, folder: Path, requires: tuple[Question, ...]) -> None:
        for name in ("evaluation", "gate", "reporting", "export", "export/adapter"):
            (folder / name).mkdir()
        (folder / "export" / "adapter" / "README.md").write_text(f"# A model\n\n{EVALUATION}\n\nNot here.\n")
        config = EvaluationConfig(resamples=2000, samples=3)
        self.report: EvaluationReport = run_evaluation(config, generations=made, workdir=folder / "evaluation")
        self.decision: GateDecision = run_gate(
            GateConfig(requires=requires), generations=made, evaluation=self.report, workdir=folder / "gate"
        )
        run = pieces._run(self.report, folder / "export")
        shown = pieces._shown(evaluation=evaluation.STAGE.show(self.report), gate=gate.STAGE.show(self.decision))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.reporting.stage.show_all", lambda _run: shown)  # of stages that left no files here
            self.page: RunReport = reporting.run_reporting(
                reporting.ReportingConfig(),
                **{
                    name: getattr(run, name)
                    for name in ("preflight", "sample", "tokens", "checkpoint", "exported", "prompts")
                },
                generations=made,
                evaluation=self.report,
                decision=self.decision,
                workdir=folder / "reporting",
                progress=Progress(lambda _tick: None),
            )
        kind: Any = self.decision.ruling
        self.event = Event(
            number=1, at="", kind=kind, candidate="c", version=1, by="gate", reasons=self.decision.reasons
        )

    def metric(self, name: str) -> Metric:
        return self.report.metric(name)

    def views(self) -> dict[str, str]:
        folder = self.page.path
        files = [*folder.glob("*.*"), *folder.glob("cards/*.md")]
        assert {"report.html", "report.md", "figures.json", "adapter.md"} <= {file.name for file in files}
        handles = {"evaluation": self.report, "gate": self.decision, "reporting": self.page}
        outcomes = [Outcome(name, "ran", 1.0, "k", handle) for name, handle in handles.items()]
        sections = {
            "evaluation": evaluation.STAGE.show(self.report),
            "gate": gate.STAGE.show(self.decision),
            "reporting": reporting.STAGE.show(self.page),
            "promotion": promotion.sections(self.event),
            "run": [_overview(outcomes, self.page, self.event)],
        }
        return {
            **{file.name: file.read_text() for file in files},
            **{f"dashboard, {stage}": in_dashboard(stage, found) for stage, found in sections.items()},
            "terminal": printed(lambda: self._in_terminal(outcomes)),
            "end": printed(self._at_the_end),
            "models": printed(self._among_models),
            "evaluate": printed(self._evaluated),
        }

    def _in_terminal(self, outcomes: list[Outcome]) -> None:
        with Terminal(Console(width=1000)) as terminal:
            for outcome in outcomes:
                terminal.finished(outcome)

    def _at_the_end(self) -> None:
        told = {"report": "r", "model": "m", "version": 1, "verdict": self.event.kind, "reasons": self.event.reasons}
        server: Any = SimpleNamespace(temporary=True)
        cli._say_where(RunSummary(stages={}, verdicts={}, **told), 1.0, server, ["demo"])

    def _among_models(self) -> None:
        deciding = [one for one in self.decision.judgements if one.decides]
        row = {"version": 1, "champion": True, "id": "c", "recorded": "", "recipe": "", "path": "", "outcome": "judged"}
        verdicts, titles = ({one.metric: getattr(one, name) for one in deciding} for name in ("verdict", "title"))
        told = models._lines({**row, "verdicts": verdicts, "titles": titles, "reasons": self.event.reasons})
        Console(width=1000).print(*told, sep="\n", markup=False)

    def _evaluated(self) -> None:
        places = {"model": "m", "evaluation": str(self.report.path), "generations": "g"}
        verdict, reasons = self.decision.ruling, self.decision.reasons
        evaluate._show(Reevaluation(report=self.report, shipped={}, verdict=verdict, reasons=reasons, **places))


def in_dashboard(stage: str, sections: list[Section]) -> str:
    """With the keys of the artifacts, which are shown, too."""
    told = []
    for section in sections:
        told += [f"{stage}-{section.key}", section.title]
        for block in section.blocks:
            told += [block.alt, block.caption] if isinstance(block, Figure) else [to_markdown(block)]
    return "\n".join(told)


def printed(show: Any) -> str:
    said = StringIO()
    with redirect_stdout(said):
        show()
    assert said.getvalue()
    return said.getvalue()


RUNS: dict[str, tuple[float, float | None, int]] = {
    "specific": (20.0, 2.0, 12),
    "unspecific": (20.0, 20.0, 12),
    "more elsewhere": (20.0, 60.0, 12),
    "not measured": (20.0, None, 12),
    "no gain": (0.0, 0.0, 12),
    "no gain, but a loss elsewhere": (0.0, -40.0, 12),
    "too few repositories": (20.0, 2.0, 5),
}


@pytest.mark.parametrize("requires", [ALL, ("improved", "retention")], ids=", ".join)
@pytest.mark.parametrize("run", RUNS)
def test_it_is_said_only_where_it_is_shown(run: str, requires: tuple[Question, ...], tmp_path: Path) -> None:
    own, elsewhere, repositories = RUNS[run]
    judged = Judged(generations(tmp_path / "made", own, elsewhere, repositories), tmp_path, requires)
    shown = run == "specific"
    assert judged.report.learned is shown
    views = {name: " ".join(text.split()) for name, text in judged.views().items()}
    saying = {name for name, text in views.items() if "learned" in text.lower()}
    if not shown:
        assert not saying
        return
    report = {"report.html", "report.md", "adapter.md", "terminal", "dashboard, reporting", "dashboard, run"}
    decided = {"end", "models", "evaluate", "dashboard, gate", "dashboard, promotion"}
    assert saying == report | (decided if requires == ALL else set())
    assert {name: text.lower().count("learned") for name, text in views.items()} == {
        name: text.count(CLAIM) for name, text in views.items()
    }


@pytest.mark.parametrize("held_out_by", UNITS)
def test_with_it_stands_what_it_proves(held_out_by: HeldOutBy, tmp_path: Path) -> None:
    judged = Judged(generations(tmp_path / "made", *RUNS["specific"], held_out_by), tmp_path, ALL)
    views = {name: " ".join(text.split()) for name, text in judged.views().items()}
    limited = {name for name, text in views.items() if "It says nothing of a repository never seen." in text}
    claiming = {name for name, text in views.items() if CLAIM in text}
    if held_out_by == "repository":
        assert not limited
    else:
        assert claiming <= limited == claiming | {"dashboard, evaluation"}
    unit = UNITS[held_out_by]
    assert f"12 held-out {unit.many}" in views["report.html"] and f"halves of the {unit.many}" in views["report.html"]


@pytest.mark.parametrize("held_out_by", UNITS)
def test_without_an_interval_it_is_said_of_what_there_are_too_few(held_out_by: HeldOutBy, tmp_path: Path) -> None:
    made = generations(tmp_path / "made", *RUNS["too few repositories"], held_out_by)
    judged = Judged(made, tmp_path, ALL)
    many = UNITS[held_out_by].many
    assert f"5 held-out {many} cannot give an interval" in judged.page.verdict
    assert f"(too few {many} for an interval)" in judged.report.summary


@pytest.mark.parametrize(
    ("run", "verdict", "ruling", "ruling_without"),
    [
        ("specific", "improved", "promote", "promote"),
        ("unspecific", "inconclusive", "hold", "promote"),
        ("more elsewhere", "regressed", "hold", "promote"),
        ("not measured", None, "hold", "hold"),  # nor was what it kept
        ("no gain, but a loss elsewhere", "improved", "hold", "hold"),
    ],
)
def test_a_promotion_needs_what_it_requires(
    run: str, verdict: str | None, ruling: str, ruling_without: str, tmp_path: Path
) -> None:
    made = generations(tmp_path / "made", *RUNS[run])
    rulings = []
    for name, requires in (("all", ALL), ("two", ("improved", "retention"))):
        (tmp_path / name).mkdir()
        judged = Judged(made, tmp_path / name, requires)  # type: ignore[arg-type]
        rulings.append(judged.decision.ruling)
        said = " ".join(judged.decision.reasons)
        assert ("was not required" in said) is (name == "two")
        assert said in judged.page.verdict
    assert rulings == [ruling, ruling_without]
    assert next((one.verdict for one in judged.report.metrics if one.name == "specific_loss"), None) == verdict


def test_completions_have_the_question_too(tmp_path: Path) -> None:
    judged = Judged(generations(tmp_path / "made", *RUNS["unspecific"]), tmp_path, ALL)
    found = judged.metric("specific_line_exact_match")
    assert (found.base, found.tuned, found.verdict) == (0.0, 1.0, "improved")
    (section,) = [one for one in evaluation.STAGE.show(judged.report) if one.key == "specific"]
    table: Any = section.blocks[0]
    assert "elsewhere" in table.columns[2] and "held-out" in table.columns[3]
    assert [row[1:4] for row in table.rows[:2]] == [
        ("inconclusive", "−0.2000", "−0.2000"),
        ("improved", "0.0 pp", "+100.0 pp"),
    ]


def test_no_sentence_says_it_elsewhere() -> None:
    """Of all strings with a space in them, docstrings aside, that the project's code has."""
    found: dict[str, list[str]] = {}
    for path in sorted(file for room in ("artifacts", "tasks", "flows") for file in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else ""
            if isinstance(text, str) and "learned" in text.lower() and " " in text:
                found.setdefault(path.relative_to(ROOT).as_posix(), []).append(text)
    assert found == {"tasks/gate/stage.py": [CLAIM], "tasks/reporting/verdict.py": [CLAIM]}
