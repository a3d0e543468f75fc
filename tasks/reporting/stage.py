"""The stage: gather what every stage shows, write the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from artifacts.escaping import quoted
from artifacts.presentation import Section, Table
from artifacts.presentation import to_markdown as to_markdown_block
from artifacts.progress import Progress
from artifacts.schema import (
    Checkpoint,
    DatasetSample,
    EvaluationReport,
    Executions,
    ExportedModel,
    Generations,
    PreflightReport,
    PromptSet,
    RetentionSample,
    RunReport,
    TokenizedDataset,
)
from artifacts.verdicts import GateDecision
from tasks.evaluation.forms import side_by_side
from tasks.exporting.card import EVALUATION
from tasks.reporting.chapters import chapters
from tasks.reporting.config import ReportingConfig
from tasks.reporting.inputs import RunResults
from tasks.reporting.page import Page, to_html, to_markdown
from tasks.reporting.verdict import Answer, KeyFigure, answers_of, compared, key_figures, of_the_gate, tone_of
from tasks.reporting.view import sections
from tasks.running.stage import Stage


def run_reporting(  # the stages' handles are the signature
    config: ReportingConfig,
    *,
    preflight: PreflightReport,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    checkpoint: Checkpoint,
    exported: ExportedModel,
    prompts: PromptSet,
    generations: Generations,
    evaluation: EvaluationReport,
    retention: RetentionSample | None = None,
    decision: GateDecision | None = None,
    executions: Executions | None = None,
    workdir: Path,
    progress: Progress,
    **shipped: EvaluationReport,
) -> RunReport:
    """Write `report.html`, one page that loads nothing from elsewhere, `report.md`, the same for the dashboard,
    `figures.json`, its key figures, and `cards/`, the export's model cards with what came of the comparison."""
    progress.begin("writing the report")
    run = RunResults(
        preflight=preflight,
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        exported=exported,
        prompts=prompts,
        generations=generations,
        evaluation=evaluation,
        retention=retention,
        decision=decision,
        executions=executions,
        shipped=shipped,
    )
    page = compose(config, run, show_all(run))
    write(page, workdir)
    forms = [side_by_side(evaluation, shipped)] if shipped else []
    write_cards(exported.path, page.answers, compared(evaluation), workdir / "cards", forms)
    return RunReport(path=workdir, verdict=" ".join(answer.sentence for answer in page.answers))


def show_all(run: RunResults) -> dict[str, list[Section]]:
    """What each stage has to show of its result, by stage."""
    from tasks import (
        evaluation,
        execution,
        exporting,
        gate,
        generation,
        preflight,
        prompts,
        sampling,
        tokenization,
        training,
    )

    found = {
        "preflight": preflight.STAGE.show(run.preflight),
        "sampling": sampling.STAGE.show(run.sample),
        "tokenization": tokenization.STAGE.show(run.tokens),
        "training": training.STAGE.show(run.checkpoint),
        "exporting": exporting.STAGE.show(run.exported),
        "prompts": prompts.STAGE.show(run.prompts),
        "generation": generation.STAGE.show(run.generations),
        "evaluation": evaluation.STAGE.show(run.evaluation),
    }
    if run.decision:
        found["gate"] = gate.STAGE.show(run.decision)
    for form, one in run.shipped.items():
        found[f"shipped-evaluation {form}"] = evaluation.SHIPPED.show(one)
    if run.executions:
        found["execution"] = execution.STAGE.show(run.executions)
    return found | ({"retention": sampling.RETENTION.show(run.retention)} if run.retention else {})


def compose(config: ReportingConfig, run: RunResults, shown: dict[str, list[Section]]) -> Page:
    """The page as data."""
    answers = answers_of(run.evaluation)
    tone = tone_of(answers)
    if run.decision:  # whatever the figures say one by one, the verdict is the gate's
        answers = [judged := of_the_gate(run.decision), *answers]
        tone = judged.tone
    return Page(
        title=config.title,
        subtitle=_subtitle(run),
        answers=answers,
        tone=tone,
        figures=key_figures(run),
        chapters=chapters(run, shown),
    )


def write(page: Page, folder: Path) -> None:
    """The page as HTML and, for the dashboard, as Markdown; its key figures as JSON for whoever wants no page."""
    (folder / "report.html").write_text(to_html(page), encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(page), encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps([asdict(figure) for figure in page.figures], indent=1))


def write_cards(
    export: Path, answers: Sequence[Answer], figures: Sequence[KeyFigure], folder: Path, more: Sequence[Section] = ()
) -> None:
    """The model cards of an export, `adapter.md` and `merged.md`, with what the run says: they were written, and belong
    to the export, before there was anything to compare. `more`: what is shown behind it."""
    table = to_markdown_block(Table(("", "", ""), tuple((f.label, f.value, f.note) for f in figures)))
    results = "\n\n".join([EVALUATION, *(f"**{one.question}** {quoted(one.sentence)}" for one in answers), table])
    for section in more:
        results = "\n\n".join([results, f"### {section.title}", *map(to_markdown_block, section.blocks)])
    for card in sorted(export.glob("*/README.md")):
        folder.mkdir(exist_ok=True)
        before, found, after = card.read_text(encoding="utf-8").rpartition(f"\n{EVALUATION}\n")
        text = f"{(before if found else after).rstrip()}\n\n{results}\n"
        (folder / f"{card.parent.name}.md").write_text(text, encoding="utf-8")


def _subtitle(run: RunResults) -> str:
    """Model, data and machine in one line."""
    model = run.exported.base_model
    name = Path(model).name if Path(model).is_absolute() else model
    parts = (name, run.sample.source, run.preflight.machine)
    return " · ".join(str(part) for part in parts if part)


STAGE = Stage(name="reporting", version=12, run=run_reporting, produces=RunReport, sections=sections, needs_gpu=False)
