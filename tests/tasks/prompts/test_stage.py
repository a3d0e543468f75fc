"""What is asked, in files: one for the losses and one for every suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from artifacts.progress import Progress
from artifacts.rows import read_rows
from artifacts.schema import PromptSet
from tests.tasks.functional.suites import row, write
from tests.tasks.generation import world
from tests.tasks.generation.world import World


def fingerprints(asked: PromptSet) -> dict[str, str]:
    return {file.name: file.fingerprint for file in (asked.losses, *asked.suites)}


def test_every_suite_is_a_file_with_what_both_models_are_asked(small_world: World, tmp_path: Path) -> None:
    suite = write(tmp_path / "small.jsonl", row())
    asked = small_world.ask(tmp_path / "asked", functional=[str(suite)], functional_tokens=40)
    assert [file.name for file in asked.suites] == ["line", "fim", "block", "small"]
    for file in (asked.losses, *asked.suites):
        rows = read_rows(asked.path / file.file)
        assert len(rows) == file.rows
        assert {one["domain"] for one in rows} == ({"retention"} if file.name == "small" else {"held_out", "retention"})
    limits = {file.name: {one["new_tokens"] for one in read_rows(asked.path / file.file)} for file in asked.suites}
    assert limits == {"line": {24}, "fim": {24}, "block": {48}, "small": {40}}
    assert "chunks for the loss, prompts: line 32, fim 16, block 8, small 1" in asked.summary


def test_it_is_told_which_suite_is_being_chosen(small_world: World, tmp_path: Path) -> None:
    told: list[str] = []
    small_world.ask(tmp_path / "asked", progress=Progress(lambda tick: told.append(tick.title)), block_prompts=0)
    assert {"choosing completing lines", "choosing filling in lines"} <= set(told)
    assert "choosing filling in blocks" not in told


@pytest.mark.parametrize(
    ("changes", "others"),
    [({"block_prompts": 4}, set()), ({"functional": ["{tmp}/small.jsonl"]}, set()), ({"line_prompts": 8}, {"line"})],
)
def test_another_suite_changes_no_other_file(
    small_world: World, tmp_path: Path, changes: dict[str, Any], others: set[str]
) -> None:
    write(tmp_path / "small.jsonl", row())
    given = {
        name: [one.format(tmp=tmp_path) for one in value] if isinstance(value, list) else value
        for name, value in changes.items()
    }
    before, after = (
        fingerprints(small_world.ask(tmp_path / name, **{"block_prompts": 0, **more}))
        for name, more in (("before", {}), ("after", given))
    )
    assert before.keys() <= after.keys()
    assert {name for name in before if before[name] != after[name]} == others


def test_the_rules_of_a_problem_are_part_of_the_suites_fingerprint(small_world: World, tmp_path: Path) -> None:
    """They decide where answers end, and the prompts do not show them."""
    found = []
    for name, test in (("a", "def check(f): pass\n"), ("b", "def check(f): assert f(1) == 2\n")):
        suite = write(tmp_path / "small.jsonl", row(test=test))
        found.append(fingerprints(small_world.ask(tmp_path / name, functional=[str(suite)])))
    assert found[0]["small"] != found[1]["small"] and found[0]["line"] == found[1]["line"]


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        world.build(tmp_path, {}).ask(tmp_path / "asked")
    assert refused.value.field == "sampling" and "hold out" in str(refused.value.remedy)


def test_prompts_beyond_the_context_are_refused(small_world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        small_world.ask(tmp_path, prompt_tokens=100_000)
    assert caught.value.field == "prompts.prompt_tokens"
