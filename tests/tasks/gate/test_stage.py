"""The stage as a whole, what it hands on, and what single conditions of a ruling decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.progress import Progress, Tick
from artifacts.registry import Registry
from artifacts.schema import EvaluationReport, ExportedModel, Generations, Metric, RunReport
from artifacts.store import Store
from artifacts.verdicts import Event, GateDecision
from tasks.gate import GateConfig, promotion, results, run_gate
from tasks.gate.config import ASKED
from tasks.gate.results import Result
from tasks.gate.stage import decide, judge, with_the_forms
from tasks.gate.versus import versus
from tasks.gate.view import sections
from tasks.statistics import paired_difference
from tests.tasks.gate.test_gate import SPECIFIC, made, metric, settle

CONFIG = GateConfig(requires=("improved", "retention", "shipped"))
ANSWERS = [(1.0, 0.0)] * 5 + [(0.0, 1.0)] + [(1.0, 1.0)] * 10
"""Of base and tuned to sixteen problems."""


def ruled(*metrics: Metric, config: GateConfig = CONFIG) -> tuple[str, int]:
    """The ruling, and how many reasons there are, beside what was not required."""
    ruling, reasons = decide([judge(one, config) for one in metrics], config)
    return ruling, sum(SPECIFIC not in one for one in reasons)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """What generation and evaluation leave: three chunks, sixteen problems."""
    made, scored = tmp_path / "made", tmp_path / "scored"
    for folder in (made, scored):
        folder.mkdir()
    common = {"domain": "retention", "suite": "mbpp"}
    tables = {
        made / "losses.parquet": [
            {"domain": domain, "repo": repo, "path": "a.py", "chunk": 0, "tokens": 10, "base": 20.0, "tuned": tuned}
            for domain, repo, tuned in (("held_out", "r", 19.0), ("held_out", "s", 18.0), ("retention", "r", 21.0))
        ],
        made / "completions.parquet": [
            {**common, "item": n, "repo": f"r{n}", "prompt": f"p{n}", "base": "1", "tuned": "2"} for n in range(16)
        ],
        scored / "scores.parquet": [
            {**common, "item": n, "repo": f"r{n}", "score": "pass", "base": base, "tuned": tuned}
            for n, (base, tuned) in enumerate(ANSWERS)
        ],
    }
    for path, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), path)
    return made, scored


def judged_as(
    lost_by: dict[str, float], folders: tuple[Path, Path], tmp_path: Path, config: GateConfig = CONFIG
) -> GateDecision:
    """The decision where the tuned model's losses are so many nats higher in these forms, and training gained 0.02."""
    made, scored = folders
    figures = (metric(), metric("retention_loss", -0.01, 0.01))
    (out := tmp_path / "out").mkdir(exist_ok=True)
    return run_gate(
        config,
        generations=Generations(path=made, quantization="int8", losses=3, completions=16),
        evaluation=EvaluationReport(path=scored, metrics=figures, samples=(), quantization="int8"),
        workdir=out,
        **{form: as_form(form, lost) for form, lost in lost_by.items()},
    )


def as_form(form: str, lost: float) -> EvaluationReport:
    """A form in which the losses of the tuned model are so many nats higher."""
    low, high = lost - 0.004, lost + 0.004
    costs = (
        metric("loss", low, high, difference=lost, margin=None, bound=high),
        metric("retention_loss", low, high, difference=lost, bound=high),
        metric("line_exact_match", -0.9, -0.8),  # decides nothing
    )
    return EvaluationReport(metrics=(), samples=(), quantization="int8", form=form, costs=costs)


def test_a_form_that_costs_nothing_is_told_and_changes_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    decision = judged_as({"gguf-q8_0": 0.0}, folders, tmp_path)
    assert decision.ruling == "promote" and "As gguf-q8_0, which is shipped" in decision.reasons[-1]
    (form,) = decision.shipped
    assert {one.metric for one in form.costs} == {"loss", "retention_loss"}
    shown = sections(decision)[1]
    assert shown.title == "What the shipped forms cost" and len(shown.blocks[0].rows) == 2  # type: ignore[union-attr]


def test_every_form_that_is_measured_must_be_as_good(folders: tuple[Path, Path], tmp_path: Path) -> None:
    good = judged_as({"gguf-f16": 0.0, "gguf-q8_0": 0.0}, folders, tmp_path)
    assert (
        good.reasons[-1]
        == "As gguf-f16 and gguf-q8_0, which are shipped, it is within its margins of the trained model."
    )
    one_is_not = judged_as({"gguf-f16": 0.0, "gguf-q2_k": 1.0}, folders, tmp_path)
    assert one_is_not.ruling == "hold" and all(reason.startswith("As gguf-q2_k") for reason in one_is_not.reasons)
    by_name = GateConfig(requires=("improved", "gguf-f16"))
    (tmp_path / "out" / "decision.json").unlink()
    named = judged_as({"gguf-f16": 0.0, "gguf-q2_k": 1.0}, folders, tmp_path, by_name)
    assert named.ruling == "promote" and "As gguf-f16, which is shipped" in named.reasons[-2]
    assert "gguf-q2_k as it was trained was not required (loss: regressed" in named.reasons[-1]


def test_the_margin_on_held_out_code_is_a_share_of_what_training_gained(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"tolerance": 0.5})  # 0.01 of 0.02 nats
    for lost, said in ((0.005, "non-inferior"), (0.0061, "regressed")):
        (form,) = judged_as({"gguf-q8_0": lost}, folders, tmp_path, config).shipped
        assert form.costs[0].metric == "loss" and form.costs[0].verdict == said


def test_a_decision_about_one_form_as_registries_hold_it_is_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    now = judged_as({"gguf-q8_0": 0.0}, folders, tmp_path)
    costs = now.model_dump(mode="json")["shipped"][0]["costs"]
    older = {**now.model_dump(mode="json"), "form": "gguf-q8_0", "shipped": costs}
    assert GateDecision.model_validate(older).shipped == now.shipped
    assert GateDecision.model_validate({**older, "form": "", "shipped": []}).shipped == ()


def test_a_form_that_loses_what_training_gained_holds_the_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    decision = judged_as({"gguf-q2_k": 1.0}, folders, tmp_path)
    assert decision.ruling == "hold" and "As gguf-q2_k it is not shown to be as good" in decision.reasons[0]
    assert len(decision.reasons) == 2


@pytest.mark.parametrize(
    ("requires", "lost", "ruling", "said"),
    [
        (("improved", "gguf-q2_k"), 0.0, "promote", "As gguf-q2_k, which is shipped, it is within its margins of"),
        (("improved", "gguf-q2_k"), 1.0, "hold", "As gguf-q2_k it is not shown to be as good as it was trained: loss"),
        (("improved", "gguf-q4_k_m"), 0.0, "hold", "is as good as gguf-q4_k_m as it was trained was not measured."),
        (("improved",), 1.0, "promote", "Whether it is as good as gguf-q2_k as it was trained was not required (loss"),
        (("improved",), 0.0, "promote", "Whether it is as good as gguf-q2_k as it was trained was not required (it is"),
    ],
)
def test_a_form_is_required_by_name_or_not_at_all(
    requires: Any, lost: float, ruling: str, said: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    decision = judged_as({"gguf-q2_k": lost}, folders, tmp_path, GateConfig(requires=requires))
    assert decision.ruling == ruling and sum(said in reason for reason in decision.reasons) == 1, decision.reasons
    assert {one.metric for one in decision.shipped[0].costs} == {"loss", "retention_loss"}  # told in any case


def test_where_no_form_is_measured_only_one_that_is_named_is_missed() -> None:
    reasons = ("Good.",)
    assert with_the_forms("promote", reasons, (), GateConfig()) == ("promote", reasons)
    ruling, against = with_the_forms("promote", reasons, (), GateConfig(requires=("gguf-f16",)))
    assert ruling == "hold" and against == (
        "Whether the tuned model is as good as gguf-f16 as it was trained was not measured.",
    )
    with pytest.raises(ValueError, match=r"none of improved, specific, retention, shipped, and no form .* gguf-q4_k_m"):
        GateConfig(requires=("merged",))


def test_the_stage_judges_every_figure_and_keeps_every_item(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, scored = folders
    figures = (metric(), metric("retention_loss", -0.01, 0.01), metric("retention_mbpp_pass", -0.03, 0.03))
    ticks: list[Tick] = []
    decision = run_gate(
        CONFIG,
        generations=Generations(path=made, quantization="int8", losses=3, completions=16),
        evaluation=EvaluationReport(path=scored, metrics=figures, samples=(), quantization="int8"),
        workdir=tmp_path,
        progress=Progress(ticks.append),
    )
    assert (decision.ruling, decision.path) == ("promote", tmp_path)
    assert [(one.metric, one.verdict, one.decides) for one in decision.judgements] == [
        ("loss", "improved", True),
        ("retention_loss", "non-inferior", True),
        ("retention_mbpp_pass", "non-inferior", True),
    ]
    # Beside a figure stands what its own items say, not those of others.
    assert decision.judgements[0].beside == ""
    assert "base 15 of 16" in decision.judgements[2].beside and "1 gained, 5 lost" in decision.judgements[2].beside
    assert GateDecision.model_validate_json((tmp_path / "decision.json").read_bytes()) == decision.model_copy(
        update={"path": Path()}
    )
    assert len(results.read(tmp_path / "results.parquet")) == 19
    assert len(ticks) == 1


def test_a_model_is_judged_again_when_the_gate_was_set_otherwise(
    folders: tuple[Path, Path], tmp_path: Path, store: Store
) -> None:
    """Also by what only counts against the champion: a candidate is settled once, and this fingerprint names it."""
    made, scored = folders
    found = []
    for number, changes in enumerate(({}, {}, {"tolerance": 0.1}, {"seed": 1})):
        workdir = store.workdir("gate", str(number))
        decision = run_gate(
            CONFIG.model_copy(update=changes),
            generations=Generations(path=made, quantization="int8", losses=3, completions=16),
            evaluation=EvaluationReport(path=scored, metrics=(metric(),), samples=(), quantization="int8"),
            workdir=workdir,
        )
        found.append(store.publish("gate", str(number), decision, workdir).fingerprint)
    assert found[0] == found[1] and len({*found}) == 3


def test_results_of_losses_and_of_answers_say_where_they_are_from(folders: tuple[Path, Path]) -> None:
    found = results.gather(folders)
    losses = {(one.metric, one.cluster): one for one in found if one.metric.endswith("loss")}
    assert {key: (one.weight, one.base, one.tuned) for key, one in losses.items()} == {
        ("loss", "r"): (10, 2.0, 1.9),
        ("loss", "s"): (10, 2.0, 1.8),
        ("retention_loss", "r"): (10, 2.0, 2.1),
    }
    answers = [one for one in found if one.metric == "retention_mbpp_pass"]
    assert sorted((one.base, one.tuned) for one in answers) == sorted(ANSWERS)
    assert {one.cluster for one in answers} == {f"r{n}" for n in range(16)}
    assert {one.weight for one in answers} == {1.0}
    items = [one.item for one in found]
    assert len({*items}) == len(items) and {len(item) for item in items} == {64}
    assert found == sorted(found, key=lambda one: (one.metric, one.item))


@pytest.mark.parametrize("found", [[], [Result("loss", "i", "r", 10, 2, 1)]])
def test_results_have_the_same_columns_whatever_they_are(found: list[Result], tmp_path: Path) -> None:
    results.write(found, tmp_path / "results.parquet")
    schema = pq.read_schema(tmp_path / "results.parquet")
    assert [str(kind) for kind in schema.types] == ["string"] * 3 + ["double"] * 3
    assert results.read(tmp_path / "results.parquet") == found


@pytest.mark.parametrize(
    ("figures", "ruling", "reasons"),
    [
        # What does not decide, and is not worse, is no objection.
        ([metric(), metric("retention_loss"), metric("line_exact_match", 0.1, 0.2)], "promote", 1),
        ([metric(), metric("retention_loss"), metric("line_exact_match", -0.1, 0.2)], "promote", 1),
        # More than kept is kept.
        ([metric(), metric("retention_loss", -0.03, -0.01)], "promote", 1),
        # What must be learned must have improved: not to be worse is not enough.
        ([metric("loss", -0.01, 0.01), metric("retention_loss")], "hold", 1),
        # One that decides and regressed is one objection, not two.
        ([metric(), metric("retention_loss", 0.06, 0.09)], "hold", 1),
        # One that is asked for nothing that is required objects when it has regressed.
        (
            [metric("loss", 0.06, 0.09), metric("retention_loss", 0.06, 0.09), metric("line_exact_match", -0.2, -0.1)],
            "hold",
            3,
        ),
    ],
)
def test_each_figure_counts_once(figures: list[Metric], ruling: str, reasons: int) -> None:
    assert ruled(*figures) == (ruling, reasons)


def test_where_nothing_is_required_only_what_regressed_holds() -> None:
    config = GateConfig(requires=())
    assert ruled(metric("loss", None, None), config=config) == ("promote", 1)
    assert ruled(metric("retention_loss", 0.06, 0.09), config=config) == ("hold", 1)
    _, reasons = decide([judge(metric(), config)], config)
    assert "tuned model" not in reasons[0]  # nothing is claimed of it


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        (("improved", "retention"), [ASKED["improved"], ASKED["retention"]]),
        (("improved", "specific"), ["learned this code"]),
        (("improved", "specific", "retention"), ["learned this code", ASKED["retention"]]),
        (("specific",), [ASKED["specific"]]),
    ],
)
def test_a_promotion_claims_what_was_required_and_no_more(requires: Any, said: list[str]) -> None:
    config = GateConfig(requires=requires)
    figures = [judge(metric(name), config) for name in ("loss", "specific_loss", "retention_loss")]
    ruling, reasons = decide(figures, config)
    claims = {*ASKED.values(), "learned this code"}
    assert ruling == "promote" and {claim for claim in claims if claim in reasons[0]} == {*said}


def test_patterns_say_what_decides() -> None:
    config = GateConfig(decided_by=("*_pass",))
    assert [judge(metric(name), config).decides for name in ("mbpp_pass", "loss", "pass_rate")] == [True, False, False]


def test_a_finding_has_the_margin_the_bound_and_whether_there_was_anything_to_lose() -> None:
    found = [
        judge(figure, CONFIG).finding
        for figure in (
            metric(margin=None, bound=0.02),
            metric(margin=0.05, bound=0.02),
            metric(margin=0.05, bound=None),
            metric("mbpp_pass", -0.01, 0.01).model_copy(update={"base": 0.02}),
        )
    ]
    assert [said.partition(", margin ")[2].split(", ") for said in found[:3]] == [
        ["0"],
        ["0.05", "bound +0.0200"],
        ["0.05"],
    ]
    assert ["too little" in said for said in found] == [False, False, False, True]
    assert ["95 % interval " in said for said in found] == [True] * 4


def test_a_finding_of_shares_is_in_points_like_the_rest_of_the_report() -> None:
    figure = metric("retention_line_edit_similarity", -0.027, -0.001, margin=0.02, bound=-0.037)
    said = judge(figure, CONFIG).finding
    assert said.endswith("95 % interval −2.7 to −0.1 pp, margin 2 pp, bound −3.7 pp") and "-" not in said


def test_the_table_says_of_each_figure_whether_it_decides() -> None:
    judgements = (judge(metric(), CONFIG), judge(metric("line_exact_match", 0.1, 0.2), CONFIG))
    (section,) = sections(GateDecision(ruling="hold", reasons=("a", "b"), judgements=judgements))
    text, table = section.blocks
    assert [row[3] for row in table.rows] == ["yes", "no"]  # type: ignore[union-attr]
    assert len(table.columns) == len(table.rows[0])  # type: ignore[union-attr]
    assert text.markdown.splitlines()[2:] == ["- a", "- b"]  # type: ignore[union-attr]


# --- candidates


def candidate(tmp_path: Path, recipe: str | None = "own.yaml", **changes: Any) -> Any:
    """Of a run, and what `candidate_of` was given."""
    settings = {"model": "m" * 64, "decision": "d" * 64} | changes
    exported = ExportedModel.model_construct(place="exporting/x", fingerprint=settings["model"])
    decision = GateDecision(
        ruling="hold", reasons=(), judgements=(), fingerprint=settings["decision"], path=tmp_path, place="gate/x"
    )
    report = RunReport(place="reporting/x", verdict="")
    return promotion.candidate_of(exported, decision, report, recipe), decision


def test_a_candidate_is_known_by_its_model_and_its_decision(tmp_path: Path) -> None:
    one, decision = candidate(tmp_path)
    assert (one.model, one.fingerprint, one.report, one.recipe) == ("exporting/x", "m" * 64, "reporting/x", "own.yaml")
    assert one.decision == decision and one.recorded
    assert len(one.id) == 12 and one.id == candidate(tmp_path, recipe="another")[0].id
    assert len({one.id, candidate(tmp_path, model="n")[0].id, candidate(tmp_path, decision="e")[0].id}) == 3
    assert candidate(tmp_path, recipe=None)[0].recipe == ""


@pytest.mark.parametrize(
    ("kind", "version", "words"),
    [("promote", 3, "promoted as v3"), ("hold", None, "held"), ("hold", 3, "held (it is v3)")],
)
def test_what_became_of_a_candidate_is_shown(kind: Any, version: int | None, words: str) -> None:
    event = Event(number=1, at="", kind=kind, candidate="c", version=version, by="gate", reasons=("a", "b"))
    assert promotion.in_words(event) == words
    (section,) = promotion.sections(event)
    (text,) = section.blocks
    assert text.markdown.splitlines() == [f"**{words}**", "", "- a", "- b"]  # type: ignore[union-attr]


def test_a_challenger_is_compared_item_by_item_by_its_weights() -> None:
    """v1 lowered the loss by 0.1 where the weight is; half the items with no weight to speak of do not count."""
    old = {f"i{n}": Result("loss", f"i{n}", f"r{n}", 100.0 if n < 6 else 1e-6, 2.0, 1.9) for n in range(12)}
    new = {
        name: Result("loss", name, one.cluster, one.weight, 2.0, 1.92 if one.weight > 1 else 9.0)
        for name, one in old.items()
    }
    assert versus(old, new, metric(margin=None), CONFIG)[0] == "non-inferior"
    assert versus(old, new, metric(margin=None), GateConfig(tolerance=0.1))[0] == "regressed"


@pytest.mark.parametrize(("lost", "verdict"), [(0.02, "non-inferior"), (0.03, "regressed")])
def test_a_quarter_of_what_the_champion_gained_may_be_lost_where_more_is_better(lost: float, verdict: str) -> None:
    old = {f"i{n}": Result("line", f"i{n}", f"r{n}", 1.0, 0.2, 0.3) for n in range(12)}
    new = {name: replace(one, tuned=0.3 - lost) for name, one in old.items()}
    figure = metric("line_edit", better="higher", margin=None)
    assert versus(old, new, figure, CONFIG)[0] == verdict


def outcomes(*lost: int, items: int = 60) -> tuple[dict[str, Result], dict[str, Result]]:
    """Of a champion that solves everything and a challenger that fails at some."""
    old = {f"{n:02}": Result("mbpp_pass", f"{n:02}", f"r{n}", 1.0, 1.0, 1.0) for n in range(items)}
    return old, {name: replace(one, tuned=float(int(name) not in lost)) for name, one in old.items()}


def test_the_challengers_outcomes_are_judged_by_the_bound() -> None:
    old, new = outcomes(1)
    found = paired_difference(
        [one.tuned for one in old.values()], [one.tuned for one in new.values()], [one.cluster for one in old.values()]
    )
    assert found.bound is not None and found.low is not None and found.bound < found.low
    between = metric("mbpp_pass", margin=-(found.bound + found.low) / 2)
    assert versus(old, new, between, CONFIG)[0] == "inconclusive"
    below = metric("mbpp_pass", margin=-found.bound + 0.001)
    assert versus(old, new, below, CONFIG)[0] == "non-inferior"


@pytest.mark.parametrize(("better", "sign"), [("lower", 1), ("higher", -1)])
def test_what_the_challenger_may_have_lost_is_judged_by_the_bound_on_the_worse_side(better: Any, sign: int) -> None:
    """One repository of twenty is much worse."""
    old = {f"i{n:02}": Result("m", f"i{n:02}", f"r{n}", 1.0, 2.0, 1.9) for n in range(20)}
    new = {name: replace(one, tuned=1.9 + sign * 0.05 * (one.cluster == "r0")) for name, one in old.items()}
    sides = [[one.tuned for one in side.values()] for side in (old, new)]
    found = paired_difference(*sides, [one.cluster for one in old.values()], better=better)
    assert None not in (found.bound, found.low, found.high)
    lost, end = sign * found.bound, max(sign * found.low, sign * found.high)
    assert lost > end
    between, beyond = (metric(better=better, margin=margin) for margin in ((lost + end) / 2, lost + 0.001))
    assert versus(old, new, between, CONFIG)[0] == "inconclusive"
    assert versus(old, new, beyond, CONFIG)[0] == "non-inferior"


def test_the_draws_are_those_of_the_seed() -> None:
    old = {f"i{n}": Result("loss", f"i{n}", f"r{n}", 1.0, 2.0, 1.9) for n in range(30)}
    new = {name: replace(one, tuned=1.9 + n * n / 1e3) for n, (name, one) in enumerate(old.items())}
    first, again, other = (versus(old, new, metric(), GateConfig(seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_with_too_few_clusters_a_challenger_is_not_shown_to_be_as_good() -> None:
    old = {f"i{n}": Result("loss", f"i{n}", f"r{n}", 1.0, 2.0, 1.9) for n in range(4)}
    assert versus(old, old, metric(), CONFIG)[0] == "inconclusive"


# --- the champion


def test_what_the_gate_holds_is_not_compared_however_good(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    held = settle(registry, tmp_path, "b", made(-0.1), ruling="hold")
    assert (held.kind, held.reasons) == ("hold", ("Good.",))
    assert settle(registry, tmp_path, "c", made(-0.1)).kind == "promote"


def test_only_what_decides_is_compared(tmp_path: Path) -> None:
    """A figure that does not decide comes first, the champion has no items of it, and the next one is much worse."""
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    config = GateConfig(decided_by=("loss",))
    aside = metric("line_edit_similarity", 0.0, 0.1, margin=None), metric("retention_loss", -0.01, 0.01)
    assert settle(registry, tmp_path, "b", made(0.5), figures=(*aside, metric()), config=config).kind == "hold"
    assert settle(registry, tmp_path, "c", made(-0.1), figures=(*aside, metric()), config=config).kind == "promote"


def test_a_figure_that_the_champion_lacks_cannot_be_compared(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    settle(registry, tmp_path, "a", made(0.0))
    passes = [Result("mbpp_pass", f"i{n}", f"r{n}", 1.0, 1.0, 1.0) for n in range(20)]
    figures = (metric(), metric("mbpp_pass", -0.01, 0.01))
    assert settle(registry, tmp_path, "b", [*made(-0.1), *passes], figures=figures).kind == "hold"
