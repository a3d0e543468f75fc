"""What stands in the training data is not asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tasks.functional import read_suite
from tasks.prompts.overlaps import screen
from tasks.prompts.view import sections
from tests.tasks.functional.suites import INFILLING, row, write
from tests.tasks.generation.world import build

COPIED = Path(replace.__code__.co_filename).read_text()[:4000]
OWN = "".join(f"def apart_{n}(left, right):\n    return left * {n} + right ** {n}\n\n" for n in range(20))


def test_a_copy_of_a_training_file_is_left_out_and_counted(tmp_path: Path) -> None:
    """The first file is what the world trains on; `copy` holds it again, reindented."""
    place = build(tmp_path / "world", {"alpha": COPIED, "copy": COPIED.replace("    ", "  "), "own": OWN}, COPIED)
    made = place.ask(tmp_path / "asked", line_prompts=4, fim_prompts=0, block_prompts=0)
    assert {one.item for one in made.contaminated} == {"alpha/main.py", "copy/main.py"}
    assert made.looked_at == {"held_out": 3}
    for file in (made.losses, *made.suites):
        assert set(pq.read_table(made.path / file.file)["repo"].to_pylist()) == {"own"} and file.rows
    text = sections(made)[1].blocks[0]
    assert "2 of 3" in str(text)


def test_nothing_left_is_said(tmp_path: Path) -> None:
    place = build(tmp_path, {"alpha": COPIED}, COPIED)
    with pytest.raises(InputError) as refused:
        screen(place.sample, None, [], tmp_path)
    assert refused.value.field == "sampling" and "copies" in str(refused.value.remedy)


def test_problems_that_were_trained_on_are_left_out_and_counted(tmp_path: Path) -> None:
    """By their prompt, by their solution, or, where a gap is to be filled, by the whole program."""
    words = '    """' + " ".join(f"word{n}" for n in range(30)) + '"""\n'
    body = "".join(f"    x = x * {n} + f{n}(x)\n" for n in range(9)) + "    return x\n"
    asked = [
        row(0, prompt="def twice(x):\n" + words),
        row(1, canonical_solution=body),
        row(2),
        {**INFILLING, "prompt": "def twice(x):\n" + body[:80], "canonical_solution": body[80:90], "suffix": body[90:]},
    ]
    suite = read_suite(write(tmp_path / "s.jsonl", *asked))
    place = build(tmp_path / "world", {"own": OWN}, f"def copied(x):\n{words}{body}")
    screened = screen(place.sample, None, [suite], tmp_path)
    assert [problem.task_id for problem in screened.suites[0].problems] == ["T/2"]
    assert [(one.domain, one.part) for one in screened.found] == [("s", "prompt"), ("s", "solution"), ("s", "program")]
    assert screened.looked_at == {"held_out": 1, "s": 4}
    (note,) = screened.notes
    assert "3 of 4 " in note and " s " in note
