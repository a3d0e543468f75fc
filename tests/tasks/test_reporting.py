"""The report: complete in itself, harmless whatever it quotes, the same for the same run, and right in its verdict."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from artifacts import figures
from artifacts.intervals import Verdict
from artifacts.presentation import Figure, Section, Table, Text
from artifacts.schema import (
    Check,
    Checkpoint,
    Comparison,
    Completion,
    DatasetSample,
    EvaluationReport,
    ExportedForm,
    ExportedModel,
    Generations,
    Metric,
    Plan,
    Prediction,
    PreflightReport,
    PromptFile,
    PromptSet,
    RunReport,
    SplitSize,
    TokenizedDataset,
    TokenizedSplit,
)
from artifacts.units import UNITS
from artifacts.verdicts import FormJudgement, GateDecision, Judgement
from tasks.evaluation import STAGE
from tasks.gate import GateConfig
from tasks.gate.stage import decide, judge
from tasks.reporting import ReportingConfig
from tasks.reporting.comparison import compare
from tasks.reporting.inputs import RunResults
from tasks.reporting.page import cell_to_html, markdown_to_html, numeric_columns, to_html
from tasks.reporting.stage import compose, write
from tasks.reporting.verdict import answers_of, key_figures, signed, tone_of
from tasks.reporting.view import sections

HOSTILE = (
    "</code><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\n![x](http://evil.example/y)"
)
"""What somebody might leave in a source file, or a model produce."""


def _loss(low: float | None, high: float | None, difference: float = -0.016, clusters: int = 38) -> Metric:
    return Metric(
        name="loss",
        title="Held-out loss, nats per token",
        better="lower",
        base=2.15,
        tuned=2.15 + difference,
        difference=difference,
        low=low,
        high=high,
        items=900,
        clusters=clusters,
    )


def _retention(low: float | None, high: float | None, margin: float = 0.05) -> Metric:
    changes = {
        "name": "retention_loss",
        "title": "Retention loss, nats per token",
        "question": "retention",
        "margin": margin,
    }
    return _loss(low, high, difference=((low or 0) + (high or 0)) / 2).model_copy(update=changes)


def _specific(low: float | None, high: float | None) -> Metric:
    """Held-out code gained 0.016 nats."""
    difference = ((low or 0) + (high or 0)) / 2
    changes = {"name": "specific_loss", "title": "Held-out against elsewhere: loss", "question": "specific"}
    sides = {"base": -0.016 - difference, "tuned": -0.016}
    return _loss(low, high, difference).model_copy(update={**changes, **sides})


def _evaluation(loss: Metric | None = None, *samples: Completion, **others: Metric | None) -> EvaluationReport:
    metrics = (loss or _loss(-0.02, -0.012), *filter(None, others.values()))
    return EvaluationReport(metrics=metrics, samples=samples, quantization="int8")


def _completion(**changes: Any) -> Completion:
    texts = {
        "prompt": "def f(x):\n",
        "suffix": "",
        "truth": "    return x",
        "base": "    pass",
        "tuned": "    return x",
    }
    return Completion(kind="line", repo="repo", path="a.py", **(texts | changes))


def _run(evaluation: EvaluationReport | None = None, folder: Path = Path("/store/exporting/k")) -> RunResults:
    """One run's handles, as the stages would give them."""
    size = SplitSize(files=100, repositories=12, bytes=400_000)
    split = TokenizedSplit(files=100, chunks=800, tokens=200_000, padding=4_800, text_bytes=400_000)
    plan = Plan(
        device="cpu",
        precision="fp32",
        micro_batch=4,
        accumulation=1,
        gradient_checkpointing=False,
        backend="transformers",
    )
    comparison = Comparison(against="the trained model", largest_difference=1e-5, bound=1e-3, positions=512)
    return RunResults(
        preflight=PreflightReport(
            machine="CPU, 2 cores, 24 GiB",
            plan=plan,
            prediction=Prediction(peak_gib=1.3, tokens_per_second=4900.0, seconds=41.0, disk_gib=0.1),
            checks=(Check(name="GPU", verdict="ok", finding="none needed"),),
        ),
        sample=DatasetSample(
            source="standard library", train=size, held_out=size, languages={}, licenses={}, funnel=()
        ),
        tokens=TokenizedDataset(format="causal", max_length=256, train=split, held_out=split),
        checkpoint=Checkpoint(
            steps=200,
            tokens=200_000,
            first_loss=2.3,
            last_loss=2.2,
            trainable_parameters=65_536,
            total_parameters=7_400_000,
            peak_memory_gib=1.25,
            step_seconds=0.21,
            tokens_per_second=4760.0,
        ),
        exported=ExportedModel(
            base_model="base",
            path=folder,
            forms=tuple(ExportedForm(name=name, bytes=1, comparison=comparison) for name in ("adapter", "merged")),
        ),
        prompts=PromptSet(losses=PromptFile(name="losses", file="l", rows=900, fingerprint=""), suites=()),
        generations=Generations(quantization="int8", losses=900, completions=96),
        evaluation=evaluation or _evaluation(),
    )


def _shown(**changes: list[Section]) -> dict[str, list[Section]]:
    stages = ("preflight", "sampling", "tokenization", "training", "exporting", "prompts", "generation", "evaluation")
    return {stage: [Section(stage, stage.title(), (Text("shown"),))] for stage in stages} | changes


def _html(run: RunResults | None = None, **shown: list[Section]) -> str:
    return to_html(compose(ReportingConfig(), run or _run(), _shown(**shown)))


def test_the_form_that_is_shipped_has_a_chapter_with_its_own_figures() -> None:
    run = _as_shipped()
    shown = {f"shipped-evaluation {form}": STAGE.show(one) for form, one in run.shipped.items()}
    page = _Tags(_html(run, **shown, evaluation=STAGE.show(run.evaluation)))
    assert "As trained, and as shipped" in page.text
    for said in ("2.150 → 2.134, improved", "2.150 → 1.950, improved", "+0.1840\xa0[+0.1600,\xa0+0.2000]"):
        assert said.replace(" → ", "\xa0→\xa0") in page.text, said
    assert {form: page.text.count(form) >= 2 for form in run.shipped} == dict.fromkeys(run.shipped, True)
    anchors = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(anchors) == len({*anchors})
    assert "as shipped" not in _Tags(_html()).text


def _as_shipped() -> RunResults:
    """With two forms, of which one loses more than training gained."""
    cost = _loss(-0.001, 0.001, difference=0.0)
    whole = _evaluation(_loss(-0.021, -0.012)).model_copy(update={"form": "gguf-f16", "costs": (cost,)})
    more = _loss(0.16, 0.2, difference=0.184)
    small = _evaluation(_loss(-0.3, -0.1, difference=-0.2)).model_copy(update={"form": "gguf-q4_k_m", "costs": (more,)})
    return replace(_run(), shipped={one.form: one for one in (whole, small)})


def test_the_head_of_the_page_says_what_each_form_costs() -> None:
    run = _as_shipped()
    costs = {form: _judged(verdict) for form, verdict in (("gguf-f16", "non-inferior"), ("gguf-q4_k_m", "regressed"))}
    shipped = tuple(FormJudgement(form=form, costs=(one,)) for form, one in costs.items())
    decided = GateDecision(ruling="hold", reasons=("No.",), judgements=(), shipped=shipped)
    found = {one.label: one for one in key_figures(replace(run, decision=decided))}
    assert found["Held-out loss, gguf-f16"].tone == "good" and found["Held-out loss, gguf-q4_k_m"].tone == "bad"
    assert found["Held-out loss, gguf-q4_k_m"].note == "+0.184 [+0.160, +0.200] from trained"
    assert {one.tone for one in key_figures(run) if "gguf" in one.label} == {"neutral"}


def _judged(verdict: Verdict) -> Judgement:
    return Judgement(metric="loss", title="", question="improved", verdict=verdict, decides=True, finding="")


class _Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag == "td" else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def _svg() -> bytes:
    with figures.drawing(3, 2) as figure:
        figure.subplots().plot([1, 2, 3])
        return figures.to_svg(figure)


def test_the_page_loads_nothing() -> None:
    picture = Figure(_svg(), "svg", "a curve", "A curve")
    hostile = [Section("x", "X", (Text(HOSTILE), picture, Table(("a",), ((HOSTILE,),), HOSTILE)))]
    page = _Tags(_html(_run(_evaluation(None, _completion(tuned=HOSTILE))), training=hostile))
    assert any(tag == "img" for tag, _ in page.tags)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in _html() and "@import" not in _html()


def test_hostile_text_is_shown_not_obeyed() -> None:
    fields = ("prompt", "suffix", "truth", "base", "tuned")
    sample = Completion(kind="fim", repo=HOSTILE, path=HOSTILE, **dict.fromkeys(fields, HOSTILE))
    page = _Tags(_html(_run(_evaluation(None, sample))))
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert not any(tag == "script" for tag, _ in page.tags)


def test_markdown_shows_html_and_loads_no_image() -> None:
    html = markdown_to_html(f"**bold** {HOSTILE}\n\n```text\n{HOSTILE}\n```\n[x](javascript:alert(3))")
    tags = {tag for tag, _ in _Tags(html).tags}
    assert "strong" in tags and not tags & {"script", "img"}
    assert 'href="javascript' not in html


def test_equal_runs_give_equal_pages() -> None:
    assert _html() == _html()


@pytest.mark.parametrize(
    ("loss", "tone", "says"),
    [
        (_loss(-0.02, -0.012), "good", ("improved", " 0.016 ", " lower")),
        (_loss(0.01, 0.03, 0.02), "bad", ("regressed", " 0.020 ", " higher")),
        (_loss(-0.02, 0.004), "neutral", ("No change",)),
        (_loss(None, None, clusters=1), "neutral", ("1 held-out repository", "interval")),
    ],
)
def test_whether_it_is_better_is_what_the_interval_says(loss: Metric, tone: str, says: tuple[str, ...]) -> None:
    better, specific, _ = answers_of(_evaluation(loss))
    assert all(value in better.sentence for value in says) and better.tone == tone
    assert better.sentence in _Tags(_html(_run(_evaluation(loss)))).text
    assert "not asked" in specific.sentence and specific.tone == "neutral"


def test_what_a_gain_proves_is_said_once() -> None:
    proves = UNITS["commit"].proves
    evaluation = _evaluation().model_copy(update={"held_out_by": "commit"})
    decision = GateDecision(ruling="promote", reasons=("It learned.", proves), judgements=())
    page = compose(ReportingConfig(), replace(_run(evaluation), decision=decision), _shown())
    said = " ".join(answer.sentence for answer in page.answers)
    assert said.count(proves) == 1 and "It learned." in said


@pytest.mark.parametrize(
    ("specific", "tone", "says"),
    [
        (_specific(-0.02, -0.01), "good", (" is specific: ", " −0.016 ")),
        (_specific(-0.02, 0.01), "neutral", (" −0.011 ", " −0.005 [−0.020, +0.010]")),
        (_specific(0.01, 0.02), "bad", (" not specific: ",)),
        (_specific(None, None), "neutral", ("too few repositories",)),
    ],
)
def test_whether_the_gain_is_specific_is_what_its_interval_says(
    specific: Metric, tone: str, says: tuple[str, ...]
) -> None:
    evaluation = _evaluation(specific=specific)
    better, answer, _ = answers_of(evaluation)
    assert all(value in answer.sentence for value in says) and answer.tone == tone
    assert evaluation.learned == (tone == "good") == ("learned this code" in better.sentence)
    assert f"specific: {specific.verdict}" in evaluation.summary
    figure = next(one for one in key_figures(_run(evaluation)) if one.label == "Held-out against elsewhere")
    assert figure.value == signed(specific) and ": −0.016 against " in figure.note and figure.tone == tone


def test_without_a_gain_none_is_specific() -> None:
    """Less was lost here than elsewhere."""
    evaluation = _evaluation(_loss(-0.01, 0.02), specific=_specific(-0.02, -0.01))
    answer = answers_of(evaluation)[1]
    assert not evaluation.learned and answer.tone == "neutral" and "No gain" in answer.sentence


@pytest.mark.parametrize(
    ("retention", "tone", "says"),
    [
        (None, "neutral", ("Not asked",)),
        (_retention(-0.01, 0.03), "good", ("kept",)),
        (_retention(-0.01, 0.06), "neutral", ("cannot be said", " loss +0.025 [−0.010, +0.060]", "margin")),
        (_retention(0.02, 0.06), "bad", ("lost", " loss +0.040 [+0.020, +0.060]")),
        (_retention(0.02, 0.04), "good", ("kept",)),
        (_retention(None, None), "neutral", ("cannot be said",)),
    ],
)
def test_whether_it_kept_what_it_could_is_what_the_margin_says(
    retention: Metric | None, tone: str, says: tuple[str, ...]
) -> None:
    evaluation = _evaluation(retention=retention)
    _, _, answer = answers_of(evaluation)
    assert all(value in answer.sentence for value in says) and answer.tone == tone
    assert retention is None or evaluation.summary.endswith(f"; elsewhere 1 {retention.verdict}")  # the tables' word


@pytest.mark.parametrize(
    ("low", "high", "ruling", "tone"), [(-0.2, -0.1, "hold", "bad"), (-0.01, 0.1, "promote", "good")]
)
def test_the_verdict_at_the_top_is_the_gates(low: float, high: float, ruling: str, tone: str, tmp_path: Path) -> None:
    """A held model has no green answer at the top because some of its figures are good."""
    changes = {"name": "line_edit_similarity", "title": "Next line", "better": "higher", "low": low, "high": high}
    similarity = _loss(low, high).model_copy(update=changes)
    evaluation = _evaluation(specific=_specific(-0.02, -0.01), retention=_retention(-0.01, 0.03))
    evaluation = evaluation.model_copy(update={"metrics": (*evaluation.metrics, similarity)})
    judgements = tuple(judge(one, GateConfig()) for one in evaluation.metrics)
    decided, reasons = decide(judgements, GateConfig())
    decision = GateDecision(ruling=decided, reasons=reasons, judgements=judgements)
    page = compose(ReportingConfig(), replace(_run(evaluation), decision=decision), _shown())
    assert (decided, page.tone, page.answers[0].tone) == (ruling, tone, tone)
    assert page.answers[1].tone == tone and (ruling == "promote" or "Next line regressed" in page.answers[0].sentence)


def test_the_page_is_as_good_as_its_worst_answer() -> None:
    assert tone_of(answers_of(_evaluation(retention=_retention(0.1, 0.2)))) == "bad"
    assert tone_of(answers_of(_evaluation())) == "neutral"


def test_prediction_stands_beside_measurement() -> None:
    text = " ".join(_Tags(_html()).text.split())
    assert "peak memory, GiB 1.30 1.25 −4%" in text
    assert "speed, tokens/s 4,900 4,760 −3%" in text


def test_cells_quote_and_captions_are_set() -> None:
    assert cell_to_html("`a/<b>.py`") == "<code>a/&lt;b&gt;.py</code>"
    assert cell_to_html("__init__ <b> `x` y") == "__init__ &lt;b&gt; `x` y"
    table = Table(("a",), (("b",),), f"by `ratio` {HOSTILE}")
    html = _html(training=[Section("x", "X", (table,))])
    assert "<code>ratio</code>" in html and "<script>" not in html


def test_only_what_differs_from_the_truth_is_marked() -> None:
    base, tuned = compare(_completion(base="    return y")).answers
    assert tuned.exact and tuned.pieces == (("same", "    return x"),)
    assert not base.exact and base.pieces == (("same", "    return "), ("differs", "y"))


def test_programs_are_compared_with_each_other_and_cut_where_they_repeat_themselves() -> None:
    reasons = {"base_reason": "wrong answer", "tuned_reason": "passed"}
    base, tuned = compare(_completion(base="    x = 1\n" * 99, tuned="    x = 2\n", **reasons)).answers
    assert (base.judgement, base.exact, tuned.judgement, tuned.exact) == ("wrong answer", False, "passed", True)
    assert tuned.pieces == (("same", "    x = "), ("differs", "2"), ("same", "\n"))
    text = "".join(piece for _, piece in base.pieces)
    assert text.count("\n") == 24 and text.endswith("…")


def test_a_sample_reads_like_the_file() -> None:
    shown = compare(_completion(suffix="\n\ndef g():\n"))
    assert shown.before + shown.truth + shown.after == "def f(x):\n    return x\n\n\ndef g():\n"


def test_columns_of_figures_are_set_right() -> None:
    table = Table(("name", "count", "share", "note"), (("a", "1,200", "−3.1 %", ""), ("b", "7", "+0.2 %", "")))
    assert numeric_columns(table) == [False, True, True, False]
    assert numeric_columns(Table(("a", "b"), ())) == [False, False]


def test_settings_and_libraries_come_from_the_artifacts(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"provenance": {"key_parts": {"config": {"lora": {"r": 8}}}}}')
    assert "exporting.lora.r" in _Tags(_html(_run(folder=tmp_path))).text


def test_the_dashboard_gets_verdict_and_figures(tmp_path: Path) -> None:
    page = compose(ReportingConfig(), _run(), _shown())
    write(page, tmp_path)
    (section,) = sections(RunReport(path=tmp_path, verdict=page.answers[0].sentence))
    table = section.blocks[1]
    assert isinstance(table, Table) and ("Held-out loss", "2.150 → 2.134", "−0.016 [−0.020, −0.012]") in table.rows
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_dashboards_report_has_the_pictures_and_loads_nothing_else(tmp_path: Path) -> None:
    picture = Figure(_svg(), "svg", "a curve", "A curve")
    names = Table(("file",), ((HOSTILE,), ("![x](http://host/x.png)",), ("`a <b> ![c]`",)), "<img src=x>")
    hostile = [Section("x", "X", (Text("![y](http://host/y.png) <img src=http://host/z.png>"), picture, names))]
    write(compose(ReportingConfig(), _run(), _shown(training=hostile)), tmp_path)
    renderer = MarkdownIt("commonmark").enable("table")
    renderer.validateLink = lambda _address: True  # type: ignore[method-assign]
    rendered = renderer.render((tmp_path / "report.md").read_text())
    sources = [attributes["src"] or "" for tag, attributes in _Tags(rendered).tags if "src" in attributes]
    assert len(sources) == 1 and sources[0].startswith("data:image/svg+xml")
    assert "<code>a &lt;b&gt; ![c]</code>" in rendered and "Held-out loss" in rendered


@pytest.mark.parametrize(
    ("at_hand", "says"), [(None, ""), (13_333_333, "1.5% of the"), (200_000, "all training"), (80_000, "2.5 times the")]
)
def test_what_share_of_the_tokens_the_steps_saw_is_said(at_hand: int | None, says: str) -> None:
    run = _run()
    checkpoint = run.checkpoint.model_copy(update={"tokens_at_hand": at_hand})
    (figure,) = [one for one in key_figures(replace(run, checkpoint=checkpoint)) if one.label == "Training time"]
    assert says in checkpoint.summary and says in figure.note and bool(checkpoint.share_seen) is bool(says)
