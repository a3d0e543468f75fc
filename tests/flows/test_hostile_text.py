"""What others wrote, through every field of every view: it acts on no terminal, is no tag, link or picture, and turns
nothing around."""

from __future__ import annotations

import ast
import json
import logging
import re
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints
from uuid import uuid4

import pytest
import yaml
from markdown_it import MarkdownIt
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed
from pydantic import BaseModel

from artifacts import schema
from artifacts.errors import InputError
from artifacts.escaping import code, inert, quoted, visible
from artifacts.presentation import Section, Table, Text, to_markdown
from artifacts.progress import Tick
from artifacts.redaction import redact_logs
from artifacts.schema import EvaluationReport, Metric
from artifacts.verdicts import Event, GateDecision
from flows import cli, notification
from flows.commands import complete, lineage, models, score, store, why
from flows.failures import _section as _failure
from flows.finetune import _overview
from flows.output import Console
from flows.terminal import Terminal
from tasks import evaluation, execution, exporting, gate, generation, preflight, prompts, quantization, sampling
from tasks.exporting.card import write_card
from tasks.exporting.contract import Ingredients
from tasks.exporting.forms import FORMS
from tasks.gate import promotion
from tasks.generation.completing import Answers, CompletionRequest
from tasks.reporting import ReportingConfig
from tasks.reporting.inputs import RunResults
from tasks.reporting.page import to_html
from tasks.reporting.page import to_markdown as page_to_markdown
from tasks.reporting.stage import compose
from tasks.running.dashboard import describe
from tasks.running.run import Outcome
from tasks.running.stage import Stage
from tests.tasks.test_reporting import _Tags

ROOT = Path(__file__).parents[2]


HOSTILE = [
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b2J\x9d0;owned\x9c \x85 \x08\x7f",
    "user\u202egpj.exe \u2066x\u2069 \u200e\u200f",
    "in\u200bvisi\ufeffble \U000e0041\u2028next\u2029par",
    "half \ud800 of a sign",
    "first\nsecond\r\nthird\rover",
    "<script>alert(1)</script>",
    "<img src=http://evil.example/x onerror=alert(2)>",
    "![x](http://evil.example/y) [click](javascript:alert(3))",
    "[a]: http://evil.example\n[a] [b][a]",
    "see http://evil.example/z, www.evil.example and me@evil.example, <http://evil.example>",
    "` <img src=//evil.example> ` | ``<b>`` |",
    "```\n<img src=//evil.example>\n```\n# head\n- item\n1. one",
    "a | b\n--- | ---\n`c | <img src=//evil.example>` | d",
    "\\` <i>x</i> \\\\[y](//evil.example) \\![z](//evil.example)",
    "[bold red]markup[/] [link=http://evil.example]x[/link] [/] :warning: \\[",
    "---\nlicense: evil\n---\n: {} & *a !!python/object:x %",
    "&lt;b&gt; &#x5b;x&#x5d;(//evil.example) <!-- --> <?x?> <![CDATA[x]]>",
    "$x^{$ \\frac{ \"quotes\" 'and' {{ jinja }} {% raw %} %s {0}",
]


def filled(kind: Any, text: str) -> Any:
    """A value of a type with the text in every string of it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (str, Any):
        return text
    if isinstance(kind, type) and issubclass(kind, (bool, int, float)):
        return kind(1)
    if kind is Path or kind is datetime:
        return Path(text.replace("\0", "")) if kind is Path else datetime.now(UTC)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return filled(next(one for one in arguments if one is not type(None)), text)
    if origin is tuple or origin is list:
        return origin([filled(arguments[0], text)])
    if origin is dict:
        return {filled(arguments[0], text): filled(arguments[1], text)}
    if hasattr(kind, "__metadata__"):
        return filled(arguments[0], text)
    assert isinstance(kind, type), kind
    if issubclass(kind, BaseModel):
        hints = get_type_hints(kind)
        return kind.model_construct(**{name: filled(hints[name], text) for name in kind.model_fields})
    assert is_dataclass(kind), kind
    hints = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    return kind(**{name: filled(hint, text) for name, hint in hints.items()})


def report_on(text: str) -> EvaluationReport:
    """With metrics by the names that the others refer to."""
    report: EvaluationReport = filled(EvaluationReport, text)
    metric: Metric = filled(Metric, text)
    names = ("loss", text, f"retention_{text}_pass")
    kinds = [
        metric.model_copy(update={"name": name, "question": q}) for name in names for q in get_args(schema.Question)
    ]
    return report.model_copy(update={"metrics": tuple(kinds)})


def export_in(folder: Path, text: str) -> schema.ExportedModel:
    (folder / "adapter").mkdir(exist_ok=True)
    made: schema.ExportedModel = filled(schema.ExportedModel, text)
    forms = tuple(form.model_copy(update={"name": "adapter"}) for form in made.forms)
    return made.model_copy(update={"path": folder, "forms": forms})


HANDLES: dict[str, Stage[Any]] = {
    "execution": execution.STAGE,
    "gate": gate.STAGE,
    "prompts": prompts.STAGE,
    "generation": generation.STAGE,
    "retention": sampling.RETENTION,
    "preflight": preflight.STAGE,
    "quantization": quantization.STAGE,
    "sampling": sampling.STAGE,
}


def shown(text: str, folder: Path) -> dict[str, list[Section]]:
    """What every stage shows of a handle that holds the text wherever it can."""
    found = {name: stage.sections(filled(stage.produces, text)) for name, stage in HANDLES.items()}
    outcome = Outcome(text, "ran", 1.0, text, filled(GateDecision, text))
    table = Table((text,), ((text,), (f"`{text}`",)), quoted(text))
    more = {
        "evaluation": evaluation.STAGE.sections(report_on(text)),
        "exporting": exporting.STAGE.sections(export_in(folder, text)),
        "promotion": promotion.sections(filled(Event, text)),
        "run": [_overview([outcome], filled(schema.RunReport, text), filled(Event, text))],
        "failure": [_failure(InputError(text, field=text, remedy=text)), _failure(ValueError(text))],
        "training": [Section("training", text, (Text(quoted(text)), table))],
    }
    return found | more


def assert_harmless(markdown: str) -> None:
    """By CommonMark with tables and HTML let through: no tag, link, picture from elsewhere; nothing that an editor of
    GitHub's Markdown makes a link of."""
    assert visible(markdown) == markdown
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    for token in [inner for one in tokens for inner in (one, *(one.children or ()))]:
        assert token.type not in ("html_block", "link_open") and (
            token.type != "html_inline" or token.content == "<br>"
        ), token
        assert token.type != "image" or str(token.attrs["src"]).startswith("data:")
    outside = re.sub(r"\(data:[^)]*\)", "", re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", markdown))
    outside = re.sub(r"(?<![\\`])(`+)(?!`)[^\n]*?(?<!`)\1(?!`)", "", outside)
    assert not re.search(r"(?<!\\)://|www(?<!\\)\.evil|\w@evil", outside), outside


@pytest.mark.parametrize("text", HOSTILE)
def test_what_stages_show_is_harmless_in_the_dashboard(text: str, tmp_path: Path) -> None:
    for sections in shown(text, tmp_path).values():
        for block in [block for section in sections for block in section.blocks]:
            assert_harmless(to_markdown(block))
    tick = Tick(text, 1, 2, text, {text: text})
    assert_harmless(quoted(describe(tick)))
    assert_harmless(inert(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_the_report_is_harmless(text: str, tmp_path: Path) -> None:
    results = {
        name: filled(kind, text)
        for name, kind in (("sample", schema.DatasetSample), ("retention", schema.RetentionSample))
    }
    run = RunResults(
        **results,
        preflight=filled(schema.PreflightReport, text),
        tokens=filled(schema.TokenizedDataset, text),
        checkpoint=filled(schema.Checkpoint, text),
        exported=export_in(tmp_path, text),
        prompts=filled(schema.PromptSet, text),
        generations=filled(schema.Generations, text),
        evaluation=report_on(text),
        decision=filled(GateDecision, text),
        executions=filled(schema.Executions, text),
    )
    sections = shown(text, tmp_path) | {"tokenization": [Section("x", text, (Text(quoted(text)),))]}
    page = compose(ReportingConfig(title=text), run, sections)
    html = to_html(page)
    html.encode()
    assert visible(html) == html
    tags = _Tags(html).tags
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "link", "base", "form", "b", "i"}
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert str(attributes.get("src") or "data:").startswith("data:"), tag
        assert str(attributes.get("href") or "#").startswith("#"), tag
    assert_harmless(page_to_markdown(page))


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_data_as_it_was_written(text: str) -> None:
    line = " ".join(visible(text).split("\n"))
    (inline,) = [token for token in MarkdownIt("commonmark").parse(f"x {quoted(text)}") if token.type == "inline"]
    assert "".join(one.content for one in inline.children or ()).split() == f"x {line}".split()
    (inline,) = [token for token in MarkdownIt("commonmark").parse(f"x {code(text)}") if token.type == "inline"]
    assert [one.content.strip() for one in inline.children or () if one.type == "code_inline"] == [line.strip()]


# --- terminal -------------------------------------------------------------------------------------------------


def told_of_lineage(text: str) -> dict[str, Any]:
    one = {"fingerprint": text, "value": {text: text}}
    two = {"fingerprint": text, "stage": text, "key": text}
    return {
        "made_by": {"code": {"version": text, "commit": text, "modified": True}, "libraries": {text: text}},
        "data": {"files": {text: 1}, "licenses": {text: 1}},
        "model": {"fingerprint": text, "files": {text: {}}},
        "inputs": {text: one, "x": two},
    }


def run_row(text: str) -> dict[str, Any]:
    stages = {text: {"state": "ran"}}
    texts = dict.fromkeys(("run", "recipe", "started", "state", "verdict", "problem"), text)
    return {**texts, "stages": stages, "bytes": 1}


def model_row(text: str) -> dict[str, Any]:
    texts = dict.fromkeys(("version", "id", "recorded", "recipe", "outcome", "path"), text)
    return {**texts, "champion": True, "verdicts": {text: text}, "titles": {text: text}, "reasons": [text]}


def in_terminal(text: str) -> None:
    terminal = Terminal(Console())
    with terminal:
        terminal.started(text)
        terminal.ticked(text, Tick(text, 1, 2, text, {text: text}))
        terminal.finished(Outcome(text, "ran", 1.0, text, filled(GateDecision, text)))
        logging.getLogger("tasks.x").warning("read %s", text)


def complete_answers(text: str) -> None:
    answers = filled(Answers, text)
    complete._show(CompletionRequest(text, text), answers, text)


VIEWS: dict[str, Callable[[str], object]] = {
    "error": lambda text: cli._say_error(str(InputError(text, field=text, remedy=text))),
    "terminal": in_terminal,
    "lineage": lambda text: Console(markup=False).print(*lineage._lines(told_of_lineage(text)), sep="\n"),
    "runs": lambda text: Console(markup=False).print(*store._lines(run_row(text)), sep="\n"),
    "models": lambda text: Console(markup=False).print(*models._lines(model_row(text)), sep="\n"),
    "why": lambda text: Console(markup=False).print(*why.told(filled(why_explanation(), text)), sep="\n"),
    "score": lambda text: score._show(text, filled(score_class(), text), filled(schema.Protection, text)),
    "complete": complete_answers,
}


def why_explanation() -> Any:
    from tasks.running.explaining import Change

    class Explanation(BaseModel):
        stage: str
        state: Literal["changed"]
        key: str
        earlier: str
        finished: str
        changes: tuple[Shallow, ...]

    class Shallow(Change):
        because: tuple[()] = ()

    Explanation.model_rebuild(_types_namespace={"Shallow": Shallow, "Literal": Literal})
    return types.new_class("Known", (Explanation,))


def score_class() -> Any:
    from tasks.functional import Scores

    return Scores


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("view", [view for view in VIEWS if view != "why"])
def test_nothing_acts_on_a_terminal(view: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    redact_logs()
    if view == "error":
        cli.errors.file = said = StringIO()
        VIEWS[view](text)
        cli.errors.file = None  # type: ignore[assignment]
        out = said.getvalue()
    else:
        VIEWS[view](text)
        out = "".join(capsys.readouterr())
    assert out and visible(out) == out
    out.encode()


def test_a_real_terminal_gets_no_sign_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.markdown import Markdown

    for text in HOSTILE:
        said = StringIO()
        console = Console(file=said, force_terminal=True, color_system=None, width=200)
        for shape in (text.replace("\ud800", "?"), Markdown(text.replace("\ud800", "?"))):
            console.print(shape, markup=False)
        left = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())  # the styles of Markdown
        assert visible(left) == left


def test_there_is_one_console() -> None:
    """What prints past it prints JSON, which is ASCII."""
    for path in sorted((ROOT / "flows").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                assert "Console" not in {one.name for one in node.names}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                assert ast.unparse(node.args[0]).startswith("json.dumps(") and "ensure_ascii" not in ast.unparse(node)


# --- what leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_webhooks_message_is_harmless(text: str) -> None:
    run = FlowRun(name=text.replace("\ud800", ""), flow_id=uuid4(), parameters={"config": {"recipe": text}})
    for error in (InputError(text, field=text, remedy=text), ValueError(text)):
        said = json.loads(json.dumps(notification.message(run, Failed(data=error, message=text))))
        flat = json.dumps(said, ensure_ascii=False)
        assert visible(flat) == flat


@pytest.mark.parametrize("text", HOSTILE)
def test_model_cards_are_harmless(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"learning_rate": [0.1]}), tmp_path / "metrics" / "metrics.parquet")
    base = tmp_path / "base"
    base.mkdir()
    fields = "".join(f"{name}: {json.dumps(text)}\n" for name in ("license", "license_name", "license_link"))
    (base / "README.md").write_text(f"---\n{fields}---\n")
    made: Ingredients = filled(Ingredients, text)
    settings = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
    checkpoint = made.checkpoint.model_copy(update={"path": tmp_path / "metrics", "fallbacks": ()})
    adapter = types.SimpleNamespace(settings=settings, modules={f"x.{text}": False})
    made = made.model_copy(update={"base": base, "checkpoint": checkpoint, "adapter": adapter})
    for form in FORMS:
        write_card(made, form, tmp_path)
        front, body = (tmp_path / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
        told = yaml.safe_load(front)
        assert told["tags"] == ["code", "lora", "codetune"] and told["base_model"] == visible(text)
        assert not any("<" in told.get(name, "") for name in ("license", "license_name", "license_link"))
        assert_harmless(body)
    for form in FORMS:
        ast.parse(form.loading_lines(text, text, text))
