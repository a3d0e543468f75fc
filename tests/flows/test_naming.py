"""Which model a recipe's name means: that of its newest run, whatever was set for that."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from artifacts.errors import InputError, TransientError
from artifacts.ledger import RunRecord, StageRecord
from flows import naming
from flows.config import build


def run(day: int, recipe: str, *places: str, state: Any = "ran") -> RunRecord:
    stages = {place: StageRecord(state=state) for place in places}
    return RunRecord(id=str(day), recipe=recipe, started=datetime(2026, 11, day, tzinfo=UTC), stages=stages)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    def silent(*_: Any) -> str:
        raise TransientError("the hub does not answer")

    monkeypatch.setattr(naming, "_made_by", silent)
    runs = [
        run(9, "own-code", "exporting/c", state="started"),
        run(8, "own-code", "sampling/c", "exporting/removed"),
        run(7, "demo", "exporting/d"),
        run(6, "own-code", "sampling/a", "exporting/b", "evaluation/b"),
        run(5, "own-code", "exporting/a"),
    ]
    there = [SimpleNamespace(key=key) for key in "abcd"]
    return SimpleNamespace(ledger=SimpleNamespace(runs=lambda: runs), manifests=lambda _: there)


def test_a_recipe_is_the_model_of_its_newest_run(store: Any) -> None:
    assert naming.known_as("own-code", store) == "exporting/b"
    assert naming.known_as("demo", store) == "exporting/d"


def test_with_changes_it_is_what_these_make_first(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = build("demo", ["training.max_steps=20"])
    assert naming.known_as("demo", store, changed) == "exporting/d"
    monkeypatch.setattr(naming, "_made_by", lambda *_: "exporting/e")
    assert naming.known_as("demo", store, changed) == "exporting/e"


def test_without_a_run_it_is_what_the_recipe_makes(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransientError):
        naming.known_as("codellama-7b-t4", store)
    monkeypatch.setattr(naming, "_made_by", lambda *_: "exporting/f")
    assert naming.known_as("codellama-7b-t4", store) == "exporting/f"
    with pytest.raises(InputError):
        naming.known_as("no-such.yaml", store)
