"""`codetune why`'s answers, by walking the toy pipeline over stores that real runs filled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from artifacts.store import Manifest, Store
from flows.commands.why import told
from tasks.running.dry_run import DryRun
from tasks.running.explaining import Explanation, explain
from tests.tasks.running import chain as toys
from tests.tasks.running.chain import calls, chain, through


@pytest.fixture(scope="module")
def folder(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the results of a run."""
    folder = tmp_path_factory.mktemp("chain")
    chain(str(folder))
    calls(folder)
    return folder


def why(folder: Path, stage: str, length: int = 3) -> Explanation:
    walk = DryRun(Store(folder / "store"))
    through(walk, str(folder), length)
    assert calls(folder) == []  # it runs nothing
    return explain(walk, stage)


def test_what_did_not_change_would_be_reused(folder: Path) -> None:
    assert {why(folder, stage).state for stage in ("first", "second", "third", "aside")} == {"reused"}


def test_a_changed_setting_is_named_with_both_values(folder: Path) -> None:
    explanation = why(folder, "first", length=2)
    assert explanation.state == "changed"
    assert [(one.what, one.old, one.new) for one in explanation.changes] == [("first.length", 3, 2)]


def test_what_waits_for_another_stage_is_unknown_and_says_why(folder: Path) -> None:
    lines = told(why(folder, "third", length=2))
    assert lines[0].startswith("third is unknown ") and " first " in lines[0]
    assert lines[1].startswith("  first would run") and lines[2].strip() == "first.length: 3 → 2"


def test_a_new_version_and_no_result_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "ASIDE", dataclasses.replace(toys.ASIDE, version=2))
    assert told(why(folder, "aside"))[1].strip() == "version of aside: 1 → 2"
    assert why(tmp_path, "aside").state == "new"


def test_a_damaged_result_is_told_and_left_alone(folder: Path) -> None:
    (word,) = (folder / "store").glob("aside/*/word.txt")
    text = word.read_text()
    word.write_text("xyz")
    assert "were altered" in told(why(folder, "aside"))[0] and word.exists()
    word.write_text(text)


OTHER_SETTINGS = [["a", "b"], [], [["a"], {"b": None}], {"a": [1]}, {}, None, True, 2.5, "word", [{"unhashable": {}}]]


@pytest.mark.parametrize("old", OTHER_SETTINGS, ids=repr)
def test_a_setting_of_any_type_may_differ(folder: Path, old: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(self: Store, stage: str) -> list[Manifest]:
        found = manifests(self, stage)
        for manifest in found if stage == "first" else ():
            manifest.provenance["key_parts"]["config"]["length"] = old
        return found

    manifests = Store.manifests
    monkeypatch.setattr(Store, "manifests", altered)
    explanation = why(folder, "first", length=2)
    assert [(one.what, one.old, one.new) for one in explanation.changes] == [("first.length", old, 2)]
    assert told(explanation)[1].strip().startswith("first.length: ")
    assert json.loads(explanation.model_dump_json())["changes"][0]["old"] == old


def test_an_input_that_differs_is_followed_to_its_cause(folder: Path) -> None:
    (folder / "second is broken").touch()
    chain(str(folder), length=2, return_state=True)  # leaves another first word, and nothing made of it
    calls(folder)
    head, change, cause = told(why(folder, "second", length=2))
    assert head.startswith("second would run") and change.strip().startswith("upstream: ")
    assert change.endswith(", because") and cause.strip() == "first.length: 3 → 2"
