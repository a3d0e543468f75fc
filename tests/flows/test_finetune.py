"""The flow on a git repository: what runs again and what does not, interruption, and two runs at once."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from artifacts import digest, lineage
from artifacts.errors import InputError, StageError
from artifacts.progress import Tick
from artifacts.registry import Registry
from artifacts.rows import read_rows, write_rows
from artifacts.schema import ExportedModel
from artifacts.store import Store, read_manifest
from flows import cli, naming, stages
from flows.config import build
from flows.terminal import Terminal
from tasks.evaluation.words import QUESTIONS
from tasks.exporting.card import EVALUATION
from tests.conftest import SMALL_MODEL
from tests.tasks.functional.suites import row, write
from tests.tasks.training import jobs

STAGES = [stage for stage in stages.STAGES if stage not in stages.SHIPPED]
STEPS = 6
SMALL = (
    f"model.name={SMALL_MODEL}",
    "sampling.files=24",
    "sampling.held_out=0.3",
    "retention={source: {kind: local, paths: ['package:httpx', 'package:filelock']}, languages: [Python], files: 8}",
    "tokenization.max_length=64",
    f"training.max_steps={STEPS}",
    "training.save_steps=2",
    "exporting.forms=[]",
    "prompts.max_chunks=8",
    "prompts.line_prompts=4",
    "prompts.fim_prompts=4",
    "prompts.block_prompts=2",
    "prompts.prompt_tokens=64",
    "prompts.max_new_tokens=8",
    "prompts.functional_tokens=16",
    "generation.repeated=0.4",
    "evaluation.resamples=2000",
)


@dataclass
class Interrupted:
    """A run that failed, and what it said."""

    store: Path
    step: int
    status: int
    said: str


pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with a few packages."""
    folder, library = tmp_path_factory.mktemp("mine"), Path(sysconfig.get_paths()["stdlib"])
    for name in ("json", "email", "logging", "wsgiref", "html", "http", "xml"):
        shutil.copytree(library / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "Everything"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    (folder / "untracked.py").write_text("never = 'committed'\n" * 20)
    write(folder / "small.jsonl", *(row(number) for number in range(6)))
    return folder


def arguments(code: Path, store: Path, *changes: str) -> list[str]:
    source = f"sampling.source={{kind: local, paths: ['{code}']}}"
    suite = f"prompts.functional=['{code / 'small.jsonl'}']"
    settings = [part for change in (source, suite, *SMALL, *changes) for part in ("--set", change)]
    return ["run", "demo", *settings, "--store", str(store), "--json"]


def run(code: Path, store: Path, *changes: str) -> dict[str, Any]:
    """The command line in this process; the stages of its result."""
    output = StringIO()
    with redirect_stdout(output):
        status = cli.guarded(arguments(code, store, *changes))
    assert status == 0
    told = json.loads(output.getvalue().splitlines()[-1])
    assert {"loss", "specific_loss", "retention_loss", "retention_small_pass"} == told["verdicts"].keys()
    assert told["held_out_by"] == "repository" and "never seen" in told["proves"]
    stages: dict[str, Any] = told["stages"]
    return stages


def states(stages: dict[str, Any]) -> dict[str, str]:
    return {name: stage["state"] for name, stage in stages.items()}


def cached_but(**others: str) -> dict[str, str]:
    return dict.fromkeys(STAGES, "cached") | others


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "store"


@pytest.fixture(scope="module")
def first(prefect_server: None, own_code: Path, store: Path) -> dict[str, Any]:
    """A run that nothing disturbs."""
    return run(own_code, store)


def test_a_git_repository_of_ones_own(first: dict[str, Any], own_code: Path) -> None:
    import pyarrow.parquet as pq

    assert states(first) == dict.fromkeys(STAGES, "ran")
    tables = [pq.read_table(Path(first["sampling"]["path"]) / f"{name}.parquet") for name in ("train", "held_out")]
    paths = [path for table in tables for path in table["path"].to_pylist()]
    assert len(paths) == 24 and "untracked.py" not in paths
    assert not set(tables[0]["repo"].to_pylist()) & set(tables[1]["repo"].to_pylist())


def test_lineage_leads_from_the_model_to_every_row_and_is_checked(
    first: dict[str, Any], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = first["exporting"]["path"]
    assert cli.guarded(["lineage", folder, "--check", "--store", str(store), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    assert {one["verdict"] for one in findings} == {"ok"}
    told = json.loads((Path(folder) / "lineage.json").read_text())
    sources = read_rows(Path(folder) / "sources.parquet")
    assert len(sources) == 24 == sum(told["data"]["files"].values())
    assert all(len(one["sha256"]) == 64 for one in sources)
    assert {"model", "sample", "tokens", "checkpoint", "plan", "base"} == set(told["inputs"])
    prints = {stage["fingerprint"] for name, stage in first.items() if name in ("sampling", "tokenization", "training")}
    assert prints <= {one["fingerprint"] for one in told["inputs"].values()}
    assert told["made_by"]["libraries"]["torch"] and told["made_by"]["code"]["version"]


def test_any_altered_file_or_figure_is_found(first: dict[str, Any], store: Path, tmp_path: Path) -> None:
    model, chance = tmp_path / "model", random.Random(0)
    shutil.copytree(first["exporting"]["path"], model)
    (model / "manifest.json").unlink()
    _, told = lineage.read(model)
    assert not faults(model, told)
    for path in sorted(path for path in model.rglob("*") if path.is_file() and path.name != lineage.LINEAGE):
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        whole = path.read_bytes()
        path.write_bytes(data)
        assert faults(model, told) == [path.relative_to(model).as_posix()]
        path.write_bytes(whole)
    places = list(leaves(told))
    for place in chance.sample(places, 100):
        assert faults(model, altered(told, place)), place
    for place in chance.sample(places, 8):
        forged = lineage.sealed(altered(told, place))
        (model / lineage.LINEAGE).write_text(json.dumps(forged))
        assert [one for one in lineage.check(model, forged, Store(store)) if one.verdict == "fault"], place


def test_a_row_of_data_that_is_another_in_the_store_is_found(
    first: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(first["exporting"]["path"], model)
    _, told = lineage.read(model)
    file = model / lineage.SOURCES
    rows = read_rows(file)
    write_rows([rows[0] | {"path": "other.py"}, *rows[1:]], file, dict.fromkeys(lineage.ROW, "string"))
    told["model"]["files"][lineage.SOURCES] = {"size": file.stat().st_size, "sha256": digest.of_file(file)}
    forged = lineage.sealed(told)
    assert not faults(model, forged)
    assert "sample in the store" in faults(model, forged, Store(store))


def faults(model: Path, told: dict[str, Any], store: Store | None = None) -> list[str]:
    """What the check finds."""
    return [one.what for one in lineage.check(model, told, store) if one.verdict == "fault"]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all figures and texts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from leaves(item, (*place, name))
    if not isinstance(value, (dict, list)) and place != ("seal",):
        yield place


def altered(told: dict[str, Any], place: tuple[Any, ...]) -> dict[str, Any]:
    """A copy in which one figure or text is another."""
    copy = json.loads(json.dumps(told))
    at = copy
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = "other" if at[place[-1]] != "other" else "another"
    return dict(copy)


def test_another_margin_scores_again_and_generates_nothing(first: dict[str, Any], own_code: Path, store: Path) -> None:
    again = run(own_code, store, "evaluation.margins.loss=0.2")
    assert states(again) == cached_but(evaluation="ran", gate="ran", reporting="ran")


def test_an_export_is_judged_again_by_its_folder(first: dict[str, Any], own_code: Path, store: Path) -> None:
    """With a margin that nothing can reach; what was generated is read, not made again."""
    _, *settings = arguments(own_code, store)[1:]
    output = StringIO()
    with redirect_stdout(output):
        model = first["exporting"]["path"]
        command = ["evaluate", model, "--recipe", "demo", *settings, "--set", "evaluation.margins.loss=9"]
        assert cli.guarded(command) == 0
    found = json.loads(output.getvalue().splitlines()[-1])
    assert found["model"] == model and found["generations"] == first["generation"]["path"]
    (retention,) = [one for one in found["report"]["metrics"] if one["name"] == "retention_loss"]
    assert retention["margin"] == 9 and found["evaluation"] != first["evaluation"]["path"]
    (specific,) = [one for one in found["report"]["metrics"] if one["name"] == "specific_loss"]
    assert (specific["question"], specific["margin"]) == ("specific", None)


def test_the_model_card_with_the_results_is_beside_the_report(first: dict[str, Any]) -> None:
    """No file of the export changes when it is judged."""
    before = (Path(first["exporting"]["path"]) / "adapter" / "README.md").read_text()
    (card,) = (Path(first["reporting"]["path"]) / "cards").iterdir()
    assert card.name == "adapter.md" and card.read_text().startswith(before.partition(EVALUATION)[0])
    results = card.read_text().partition(EVALUATION)[2]
    assert all(question in results for question in QUESTIONS.values()) and "Held-out loss" in results


def test_an_export_is_judged_by_other_suites(
    first: dict[str, Any], own_code: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two problems each: too few for an interval, so nothing is claimed."""
    _, *settings = arguments(own_code, store)[1:-1]
    suites = [
        write(tmp_path / f"{name}.jsonl", row(0, test="def check(twice): pass\n"), row(1)) for name in ("one", "other")
    ]
    asked = [part for suite in suites for part in ("--suite", str(suite))]
    assert cli.guarded(["evaluate", first["exporting"]["path"], "--recipe", "demo", *settings, *asked]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("one", "other"):
        assert re.search(f"{name}: [^.]*cannot be said", said)
    assert len(re.findall("pass@1 of [^:]*base: ", said)) == 2
    assert "small: " not in said and " programs " in said and "Sandbox: strong" in said


def test_an_incomplete_export_is_not_judged(
    first: dict[str, Any], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (weights,) = Path(first["exporting"]["path"]).rglob("adapter_model.safetensors")
    aside = weights.rename(weights.with_suffix(".aside"))
    try:
        command = ["evaluate", first["exporting"]["path"], "--recipe", "demo", "--store", str(store)]
        assert cli.guarded(command) == 2
    finally:
        aside.rename(weights)
    said = capsys.readouterr().err
    assert "error: MODEL: " in said and "adapter_model.safetensors" in said and "Traceback" not in said


@pytest.mark.parametrize("factor", [float("nan"), 1e38])
def test_an_adapter_that_computes_no_numbers_is_not_judged(
    factor: float, first: dict[str, Any], own_code: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, opened, key = Path(first["exporting"]["path"]), Store(store), digest.of_json(str(factor))
    manifest = read_manifest(whole)
    folder = Path(shutil.copytree(whole, opened.workdir("exporting", key), dirs_exist_ok=True))
    (file,) = folder.rglob("adapter_model.safetensors")
    save_file({name: one * 0 + factor for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
    handle = ExportedModel.model_validate(manifest.handle)
    exported = opened.publish("exporting", key, handle, folder, manifest.provenance)
    _, *settings = arguments(own_code, store)[1:]
    try:
        assert cli.guarded(["evaluate", str(exported.path), "--recipe", "demo", *settings]) == 2
    finally:
        opened.discard(exported.place)
    said = capsys.readouterr().err
    assert "error: MODEL: " in said and "adapter_model.safetensors " in said and "Traceback" not in said


def test_what_is_no_export_is_not_judged(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(["evaluate", str(store), "--recipe", "demo", "--store", str(store)]) == 2
    said = capsys.readouterr().err
    assert f"error: MODEL: {store} " in said and "--store" in said


def test_a_run_of_unchanged_inputs_judges_nothing_again(first: dict[str, Any], own_code: Path, store: Path) -> None:
    registry = Registry(Store(store).registry)
    (held,) = [one for one in registry.candidates().values() if first["exporting"]["path"].endswith(one.model)][:1]
    assert held.decision.ruling == "hold" and "is not shown" in " ".join(held.decision.reasons)
    assert cli.guarded(["promote", first["exporting"]["path"], "--reason", "a test", "--store", str(store)]) == 0
    events = registry.events()
    assert states(run(own_code, store)) == cached_but()
    assert registry.events() == events and list(registry.versions()) == [1]


def test_an_altered_export_is_built_again_and_said_so(
    first: dict[str, Any], own_code: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (weights,) = Path(first["exporting"]["path"]).rglob("adapter_model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = run(own_code, store)
    assert states(again) == cached_but(exporting="ran")
    said = " ".join(capsys.readouterr().err.split())
    assert f"exporting artifact {first['exporting']['key'][:12]} " in said and "were altered" in said
    assert again["exporting"]["fingerprint"] == first["exporting"]["fingerprint"]


@pytest.mark.parametrize(
    ("change", "before_training"),
    [
        (
            "sampling.seed=1",
            "≡ preflight, ✓ sampling, ✓ retention, ✓ tokenization, ≡ retention-tokens, ✓ prompts, ≡ quantization",
        ),
        (
            "training.learning_rate=0.01",
            "≡ preflight, ≡ sampling, ≡ retention, ≡ tokenization, ≡ retention-tokens, ≡ prompts, ≡ quantization",
        ),
    ],
)
def test_what_comes_before_training_runs_only_if_it_changed(
    change: str,
    before_training: str,
    first: dict[str, Any],
    own_code: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop() -> None:
        raise StageError("seen enough")

    monkeypatch.setattr(Terminal, "ticked", at_training(0, stop))  # as far as it takes to see that it runs
    assert cli.guarded(arguments(own_code, store, change)) == 1
    lines = capsys.readouterr().err.splitlines()
    done = [" ".join(line.split()[:2]) for line in lines if line.startswith(("✓", "≡"))]
    assert ", ".join(done) == before_training
    assert lines[-1] == "error: seen enough"


@pytest.fixture(scope="module")
def interrupted(first: dict[str, Any], own_code: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """The same run in another store, its training killed at a random step."""
    store, step = tmp_path_factory.mktemp("interrupted") / "store", random.SystemRandom().randint(3, STEPS - 1)

    def kill() -> None:
        for worker in jobs.workers():
            worker.send_signal(signal.SIGKILL)

    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(Terminal, "ticked", at_training(step, kill))
        status = cli.guarded(arguments(own_code, store))
    return Interrupted(store, step, status, said.getvalue())


def test_a_killed_training_is_said_in_one_message(interrupted: Interrupted) -> None:
    assert interrupted.status == 1
    assert "SIGKILL" in interrupted.said and "Traceback" not in interrupted.said, interrupted.said


def test_two_runs_at_once_continue_it_once_and_give_the_same_bits(
    first: dict[str, Any], interrupted: Interrupted, own_code: Path
) -> None:
    from prefect.settings import PREFECT_API_URL

    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments(own_code, interrupted.store)]
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        mine = run(own_code, interrupted.store)
        theirs = json.loads(other.communicate(timeout=120)[0].splitlines()[-1])["stages"]
    for name in STAGES:
        done = {"training": "resumed"}.get(name, "ran") if STAGES.index(name) >= STAGES.index("training") else "cached"
        assert {mine[name]["state"], theirs[name]["state"]} == {"cached", done}, name
    for both in (mine, theirs):
        assert fingerprints(both) == fingerprints(first), interrupted.step


def fingerprints(stages: dict[str, Any]) -> dict[str, str]:
    """What must not depend on interruptions; the report tells times."""
    return {name: stage["fingerprint"] for name, stage in stages.items() if name != "reporting"}


def at_training(step: int, act: Callable[[], None]) -> Callable[[Terminal, str, Tick], None]:
    """In place of `Terminal.ticked`: acts when that step of the training is reported."""

    def ticked(_terminal: Terminal, stage: str, tick: Tick) -> None:
        if stage == "training" and tick.completed == step:
            act()

    return ticked


def test_every_command_takes_every_name_of_a_model(
    first: dict[str, Any], own_code: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [part for part in arguments(own_code, store) if "=" in part]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(build("demo", changes).model_dump(mode="json")))
    folder, opened = Path(first["exporting"]["path"]), Store(store)
    candidate, *_ = [one for one in Registry(opened.registry).candidates().values() if one.model.endswith(folder.name)]
    promoted = cli.guarded(["promote", str(recipe), "--reason", "x", "--store", str(store)])
    assert promoted == 0 or "the champion already" in capsys.readouterr().err  # the run's gate did
    champion = Registry(opened.registry).champion()
    assert champion and champion.candidate.model == candidate.model  # other tests' runs make candidates of it, too
    names = ("v1", "1", "champion", candidate.id, folder.name[:8], candidate.model, str(recipe), str(folder))
    for name in (*names, str(folder / "adapter")):
        assert naming.folder_of(name, opened) == folder
        assert opened.place / naming.place_of(name, opened) == folder
    for command in (["lineage"], ["lineage", "--check"], ["complete", "--prompt", "x = ", "--new-tokens", "2"]):
        for name in ("v1", str(recipe), str(folder / "adapter")):
            assert cli.guarded([command[0], name, *command[1:], "--store", str(store)]) == 0
    with pytest.raises(InputError):
        naming.place_of(str(tmp_path), opened)
