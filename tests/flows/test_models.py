"""`codetune models`, `promote` and `rollback` on a store with real artifacts."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StageError
from artifacts.registry import Registry, now
from artifacts.schema import Comparison, ExportedForm, ExportedModel
from artifacts.store import Store
from artifacts.verdicts import Candidate, GateDecision, Judgement
from flows import cli

REASON = "The champion is better."
EXACT = Comparison(against="", largest_difference=0, bound=0, positions=0)
JUDGEMENT = Judgement(
    metric="loss", title="Held-out loss", question="improved", verdict="improved", decides=True, finding="well below"
)


def publish(store: Store, key: str, registry: Registry) -> Path:
    """An export, and its record."""
    workdir = store.workdir("exporting", key)
    (workdir / "adapter").mkdir()
    (workdir / "adapter" / "adapter_model.safetensors").write_bytes(key.encode())
    handle = ExportedModel(base_model="base", forms=(ExportedForm(name="adapter", bytes=8, comparison=EXACT),))
    exported = store.publish("exporting", key, handle, workdir)
    decision = GateDecision(ruling="promote", reasons=("Good.",), judgements=(JUDGEMENT,))
    candidate = Candidate(
        id=key[::-1],
        model=exported.place,
        fingerprint=exported.fingerprint,
        recipe="demo",
        decision=decision,
        report="",
        recorded=now(),
    )
    registry.add(candidate, exported.path / "manifest.json")
    registry.settle(candidate, lambda champion: ("hold", (REASON,)) if champion else ("promote", ()))
    return exported.path


@pytest.fixture
def exports(store: Store) -> list[Path]:
    """v1, and a held model."""
    registry = Registry(store.registry)
    return [publish(store, key, registry) for key in ("first-key", "other-key")]


def codetune(store: Store, *arguments: str) -> int:
    return cli.guarded([*arguments, "--store", str(store.place)])


def listed(store: Store, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert codetune(store, "models", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_versions_are_listed_and_with_all_the_held_models_too(
    store: Store, exports: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(store, capsys)
    assert found["champion"] == 1 and [row["path"] for row in found["models"]] == [str(exports[0])]
    assert found["models"][0]["verdicts"] == {"loss": "improved"}
    held = listed(store, capsys, "--all")["models"][1]
    assert (held["version"], held["path"]) == (None, str(exports[1]))
    assert held["outcome"].startswith("held ") and held["outcome"].endswith(" gate")
    assert codetune(store, "models", "--all") == 0
    assert REASON in capsys.readouterr().out


def test_promote_and_rollback_by_hand(store: Store, exports: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert codetune(store, "promote", str(exports[1]), "--reason", "faster") == 0
    assert "champion is v2" in capsys.readouterr().out
    assert codetune(store, "rollback", "--reason", "not faster at all") == 0
    assert listed(store, capsys)["champion"] == 1
    assert codetune(store, "rollback", "v2", "--reason", "it was") == 0
    assert listed(store, capsys)["champion"] == 2
    assert [event.reasons for event in Registry(store.registry).events()[2:]] == [
        ("faster",),
        ("not faster at all",),
        ("it was",),
    ]


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_incomplete_model_is_not_promoted(
    store: Store, exports: list[Path], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = exports[1] / "adapter" / "adapter_model.safetensors"
    weights.unlink() if damage == "missing" else weights.write_bytes(b"o")
    events = Registry(store.registry).events()
    assert codetune(store, "promote", str(exports[1]), "--reason", "hope") == 2
    said = capsys.readouterr().err
    assert "adapter_model.safetensors" in said and "Traceback" not in said
    assert Registry(store.registry).events() == events and exports[1].exists()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["promote", "v7", "--reason", "x"], "MODEL", "“v7”"),
        (["promote", "v1", "--reason", "x"], "MODEL", "v1 .*already"),
        (["promote", "/tmp", "--reason", "x"], "MODEL", "/tmp .*--store"),
        (["rollback", "--reason", "x"], "VERSION", "`codetune models` lists"),
        (["rollback", "first", "--reason", "x"], "VERSION", "“first”.* v3$"),
        (["rollback", "v" + "9" * 5_000, "--reason", "x"], "VERSION", "999”.* v3$"),
        (["promote", "9" * 5_000, "--reason", "x"], "MODEL", "too long"),
        (["promote", "v" + "9" * 200, "--reason", "x"], "MODEL", "999”.*`codetune models --all`"),
        (["promote", "demo", "--reason", "x"], "MODEL", "codetune run demo"),
        (["lineage", "demo"], "MODEL", "codetune run demo"),
        (["complete", "v9", "--prompt", "x"], "MODEL", "“v9”"),
        (["rollback", "v1"], "", "--reason"),
        (["promote", "v1", "--reason", " "], "--reason", "why"),
    ],
)
def test_what_cannot_be_done_is_said(
    store: Store,
    exports: list[Path],
    arguments: list[str],
    field: str,
    value: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert codetune(store, *arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"error: {field}: " in said or not field
    assert re.search(value, said)


def test_a_margin_below_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(["run", "demo", "--set", "evaluation.margins.loss=-0.1"]) == 2
    said = capsys.readouterr().err
    assert "error: evaluation.margins.loss: " in said and " 0" in said


RECORDS = ("*/*/manifest.json", ".registry/candidates/*/candidate.json", ".registry/events/*.json", ".runs/*.json")
DAMAGE: dict[str, bytes | None] = {
    "nothing": b"",
    "a FIFO": None,
    "deep": b'{"id":' * 100_000,
    "a list": b"[]",
    "5,000 digits": b'{"number": ' + b"9" * 5_000 + b"}",
    "of another place": b'{"id": "../../x", "model": "../../..", "recipe": "", "started": "2026-01-01T00:00:00"}',
    "another time": b'{"id": "r1", "recipe": "demo", "started": "2026-01-01T00:00:00"}',
    "the whole disk": b'{"id": "r1", "recipe": "demo", "started": "2026-01-01T00:00:00Z", "stages": {"../..": {}}}',
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", RECORDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_ends_no_command_with_a_traceback(
    store: Store, exports: list[Path], pattern: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.ledger.open("r1", "demo").end("completed")
    path = next(store.place.glob(pattern))
    data = DAMAGE[damage]
    path.unlink()
    path.write_bytes(data) if data is not None else os.mkfifo(path)
    for command in (["models", "--all"], ["lineage", "v1"], ["promote", "v1", "--reason", "x"], ["runs"]):
        status = codetune(store, *command)
        said = capsys.readouterr().err
        assert status == 0 or (status in (1, 2) and "→" in said), (command, said)


def test_an_event_of_a_candidate_that_is_gone_is_named(store: Store, exports: list[Path]) -> None:
    for folder in (store.registry / "candidates").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(StageError, match="candidate") as refused:
        Registry(store.registry).champion()
    assert refused.value.field == "store" and refused.value.remedy


LINEAGES = {
    "deep": b'{"model":' * 100_000,
    "NaN": b'{"seal": NaN}',
    "infinite": b'{"seal": Infinity}',
    "empty": b"{}",
    "a part of another form": b'{"made_by": 7, "data": [], "model": "x", "inputs": null}',
    "half a character": b'{"seal": "\\ud800"}',
}


@pytest.mark.parametrize("kind", LINEAGES)
def test_a_lineage_that_tells_nothing_is_one_message(
    kind: str, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lineage.json").write_bytes(LINEAGES[kind])
    assert codetune(store, "lineage", str(tmp_path)) == 2
    assert "lineage.json" in (said := capsys.readouterr().err) and "→" in said
    assert codetune(store, "lineage", str(tmp_path), "--check") in (1, 2)
