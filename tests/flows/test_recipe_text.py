"""YAML as data: what is written twice, what only looks like a value, and what stands for more than it seems."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from artifacts.errors import InputError
from flows import recipes
from flows.config import build
from flows.recipes import text

TWICE = {
    "two sections": ("sampling: {files: 5}\nmodel: {}\nsampling: {files: 9}\n", (1, 3)),
    "in a section": ("training:\n  max_steps: 5\n  lora: {r: 4}\n  max_steps: 9\n", (2, 4)),
    "flow style": ("training: {max_steps: 5,\n max_steps: 9}\n", (1, 2)),
    "in a list": ("a:\n- {b: 1,\n   b: 2}\n", (2, 3)),
    "quoted": ("seed: 1\n'seed': 2\n", (1, 2)),
    "merge keys": ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n", (3, 4)),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_name_that_occurs_twice_is_an_error_with_both_lines(case: str, tmp_path: Path) -> None:
    written, (first, second) = TWICE[case]
    (tmp_path / "below.yaml").write_text(written)
    (tmp_path / "r.yaml").write_text(f"recipe: {tmp_path}/below.yaml\n")
    for recipe in ("below.yaml", "r.yaml"):
        with pytest.raises(InputError, match=f" line {first} .* line {second}"):
            build(str(tmp_path / recipe))


def test_a_merged_name_may_be_set_again() -> None:
    assert text.read("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}") == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    "given", ["{max_steps: 5, max_steps: 9}", "{lora: {r: 4, r: 8}}", "max_steps: 5\nmax_steps: 9"]
)
def test_a_name_twice_on_the_command_line(given: str) -> None:
    with pytest.raises(InputError, match="twice"):
        build("demo", [f"training={given}"])


AS_WRITTEN = ["2026-02-30", "0x_", "0b2", "190:20:30", "1_000", "yes", "2026-01-01", "1e3", "=", "12e5"]


@pytest.mark.parametrize("written", AS_WRITTEN)
def test_what_is_no_number_is_text(written: str) -> None:
    assert text.read(f"a: {written}") == {"a": written}
    assert build("codellama-7b-t4", [f"model.revision={written}"]).model.revision == written


VALUES = {
    "/x/proj #2": "/x/proj #2",
    "# all": "# all",
    "---": "---",
    "null #2": "null #2",
    "two\n lines": "two\n lines",
    "'quoted #2'": "quoted #2",
    "010": 10,
    "0x1F": 31,
    "~": None,
    "[a, b]": ["a", "b"],
    "{a: {b: true}}": {"a": {"b": True}},
}


@pytest.mark.parametrize("given", VALUES)
def test_a_value_on_the_command_line_is_taken_to_its_end(given: str) -> None:
    assert text.read_value(given) == VALUES[given]


NO_DATA = [
    "!!timestamp x",
    "!!int x",
    "!!int ''",
    "!!float ''",
    "!!binary aGk=",
    "!!set {a, b}",
    "!!python/object/apply:os.system [ls]",
    "!own x",
    "9" * 5_000,
    "{1: 2}",
    "{.inf: 2}",
    "{null: 2}",
    "{[a]: 2}",
    "{? {a: 1} : 2}",
    "{<<: 5}",
    "<<",
    '"\\ud800"',
    '"a\\0b"',
    "[a\tb: \x01]",
    "\ud800",
    "[" * 100_000,
    "{a: " * 100_000,
    "- " * 100_000,
    "*a",
    "a: 1\n---\na: 2",
    "%TAG ! x",
    "...",
    "'",
    "@a",
]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "lists": BOMB,
    "merge keys": BOMB.replace("[x, x, x, x, x, x, x, x, x]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}"),
    "itself": "a: &a [*a]",
    "many values": "a: [" + "1," * 30_000 + "]",
}


@pytest.mark.parametrize("written", [*NO_DATA, *BOMBS.values()], ids=lambda written: repr(written[:12]))
def test_what_is_no_data_is_refused_at_once(written: str) -> None:
    started = time.process_time()
    for read in (text.read, text.read_value):
        with pytest.raises(ValueError) as caught:
            read(written)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("given", ["[a, b] # c", "a: b # c", "[&a x, *a]", "&a x", "{a: &b 1, <<: *b}"])
def test_comments_and_anchors_have_no_place_on_the_command_line(given: str) -> None:
    with pytest.raises(ValueError, match="needs quotes"):
        text.read_value(given)


def test_a_recipe_that_stands_on_itself_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"recipe: {two}\n")
    two.write_text(f"recipe: {tmp_path}/./one.yaml\n")
    (tmp_path / "self.yaml").symlink_to(one)
    for name in ("one.yaml", "two.yaml", "self.yaml"):
        with pytest.raises(InputError, match="stands on itself"):
            build(str(tmp_path / name))


@pytest.mark.parametrize("parent", ["[demo]", "5", "{}", "''", "false", "nothing", "~nosuchuser/a.yaml", '"a\\0.yaml"'])
def test_a_recipe_on_top_of_what_is_none(parent: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"recipe: {parent}\n")
    with pytest.raises(InputError):
        build(str(tmp_path / "r.yaml"))


def test_a_recipe_is_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    with (tmp_path / "sparse.yaml").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (tmp_path / "utf16.yaml").write_text("seed: 1\n", encoding="utf-16")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    started = time.process_time()
    for path in tmp_path.iterdir():
        with pytest.raises(InputError) as caught:
            build(str(path))
        assert caught.value.field == "recipe", path
    assert time.process_time() - started < 5


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("training: {max_steps: 7, warmup_steps: 1}\r\n", encoding="utf-8-sig")
    assert recipes.load(str(tmp_path / "r.yaml")) == {"training": {"max_steps": 7, "warmup_steps": 1}}


@pytest.mark.parametrize(
    "name", ["", " ", "~nosuchuser/r.yaml", "a" * 300 + ".yaml", "a/" * 3_000 + "r.yaml", "\ud800"]
)
def test_a_recipe_with_an_impossible_name(name: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name)
    assert caught.value.field == "recipe"
    assert len(str(caught.value)) < 500
