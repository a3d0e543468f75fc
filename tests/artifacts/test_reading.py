"""Files that belong to somebody else: read whole or refused, in bounded time and memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from artifacts import reading
from artifacts.errors import InputError
from artifacts.lines import lines_of, without_end
from artifacts.reading import blamed_on, parse_json, read_bytes, read_json, read_object, read_text
from tests.memory import peak

BAD_JSON = {
    "nothing": b"",
    "no JSON": b"{",
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, nested": b'{"b": [{"a": {"c": 1}, "a": {"c": 2}}]}',
    "deep": b"[" * 100_000,
    "65 levels": b"[" * 65 + b"]" * 65,
    "65 levels of objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "65 digits": b"1" * 65,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "NaN": b'{"a": NaN}',
    "5,000 digits": b"1" * 5_000,
    "-5,000 digits": b"-" + b"1" * 5_000,
    "half a character": b'{"a": "\\ud800"}',
    "half a character as a key": b'{"\\uDfff": 1}',
    "millions of objects": b"[" + b"{}," * 12_000_000 + b"{}]",
    "another encoding": '{"a": 1}'.encode("utf-16"),
    "no UTF-8": b'{"a": "\xff"}',
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_means_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(BAD_JSON[kind])
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        read_json(tmp_path / "a.json", field="model.name")
    assert "a.json" in refused.value.problem and refused.value.field == "model.name" and refused.value.remedy
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": 1, "a": 1}', {"a": 1}),
        (b'{"n": 1000000000000000019884624838656}', {"n": 10**30 + 19884624838656}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[" * 60 + b"]" * 60, None),
        (b"[1e400, Infinity]", [float("inf"), float("inf")]),
        (b'{"a": [1.5], "a": [1.5]}', {"a": [1.5]}),
        (b"1" * 64, int("1" * 64)),
        (b'"text"', "text"),
        (b"1", 1),
    ],
)
def test_json_as_programs_write_it_is_read(text: bytes, value: object) -> None:
    assert value is None or parse_json(text) == value


def test_a_file_is_read_whole_or_refused_by_what_the_reader_says_of_it(tmp_path: Path) -> None:
    said = b'{"a": [1]}'
    (tmp_path / "a.json").write_bytes(said)
    for read, found in (
        (read_bytes, said),
        (read_text, said.decode()),
        (read_json, {"a": [1]}),
        (read_object, {"a": [1]}),
    ):
        assert read(tmp_path / "a.json", limit=len(said)) == found
        with pytest.raises(InputError) as refused:
            read(tmp_path / "a.json", limit=len(said) - 1, field="model.name", remedy="get it again")
        assert (refused.value.field, refused.value.remedy) == ("model.name", "get it again")
        assert "a.json" in refused.value.problem


@pytest.mark.parametrize(
    ("said", "read"), [(b"[1]", read_object), (b"{", read_object), (b"{", read_json), (b"\xff", read_text)]
)
def test_contents_are_refused_by_what_the_reader_says_of_them(said: bytes, read: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(said)
    with pytest.raises(InputError) as refused:
        read(tmp_path / "a.json", field="model.name", remedy="get it again")
    assert (refused.value.field, refused.value.remedy) == ("model.name", "get it again")
    assert "a.json" in refused.value.problem


def test_parts_of_json_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_PARTS", 3)
    for text in (b"[1, 2, 3]", b"[[[]]]", b'{"a": {"b": {}}}'):
        assert parse_json(text) is not None
    for text in (b"[1, 2, 3, 4]", b"[[[[]]]]", b'{"a": {"b": {"c": {}}}}'):
        with pytest.raises(ValueError, match="more than 3 values"):
            parse_json(text)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    places = [tmp_path / "fifo", tmp_path / "sparse", tmp_path, tmp_path / "no", Path("/dev/zero"), Path("/dev/null")]
    for place in places:
        began = time.monotonic()
        for read in (read_bytes, read_text, read_json, read_object):
            with pytest.raises(InputError, match="cannot be read"):
                read(place)
        assert time.monotonic() - began < 1


def test_errors_of_a_block_name_the_file_and_stops_do_not() -> None:
    for error in (RuntimeError("a\nb"), RecursionError(), MemoryError(), KeyError("x"), UnicodeError()):
        with pytest.raises(InputError, match=r"here\.json"), blamed_on(Path("here.json")):
            raise error
    for stop in (KeyboardInterrupt(), SystemExit(1)):
        with pytest.raises(type(stop)), blamed_on(Path("here.json")):
            raise stop


def test_of_a_record_that_does_not_fit_only_the_reasons_are_told() -> None:
    class Small(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def below_ten(cls, number: int) -> int:
            if number >= 10:
                raise ValueError("ten or more")
            return number

    with pytest.raises(InputError) as refused, blamed_on(Path("here.json")):
        Small(number=10)
    assert refused.value.problem.startswith("here.json ") and refused.value.problem.endswith(": ten or more")


def in_our_code(statement: str) -> None:
    """As a module of this project would do it."""
    exec(statement, {"__name__": "tasks.somewhere", "__builtins__": __builtins__})


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("unknown", NameError),
        ("def f():\n  if 0: x = 1\n  return x\nf()", UnboundLocalError),
        ("import json; json.lods", AttributeError),
        ("from json import lods", ImportError),
        ("def f(a): pass\nf(1, 2)", TypeError),
        ("def f(a): pass\nf(b=2)", TypeError),
        ("def f(a): pass\nf()", TypeError),
    ],
)
def test_a_fault_of_the_code_is_not_blamed_on_a_file(statement: str, error: type[Exception]) -> None:
    with pytest.raises(error), blamed_on(Path("here.json")):
        in_our_code(statement)


@pytest.mark.parametrize(
    "statement", ["{}['x']", "[].get('x')", "1 + 'a'", "int('a')", "None['a']", "import json; json.loads('{')"]
)
def test_what_a_file_brings_about_is(statement: str) -> None:
    with pytest.raises(InputError), blamed_on(Path("here.json")):
        in_our_code(statement)


def test_lines_end_where_editors_end_them() -> None:
    text = "a\r\nb\x0cc\u2028d\x85e\x1cf\x0bg\u2029h\rlast"
    assert lines_of(text) == ["a\r\n", "b\x0cc\u2028d\x85e\x1cf\x0bg\u2029h\r", "last"]
    assert [without_end(line) for line in lines_of("a\r\n\r\n\rb\n")] == ["a", "", "", "b"]
    assert lines_of("") == [] and "".join(lines_of(text)) == text


def test_a_message_is_no_book() -> None:
    said = str(InputError("a" * 10_000 + " ghp_" + "0123456789abcdefghij" * 2, field="x", remedy="mend it"))
    assert len(said) < 1_600 and "mend it" in said and "ghp_0" not in said


def test_a_small_file_takes_little_memory_however_large_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a" * 1000)
    assert peak(lambda: read_bytes(tmp_path / "a.yaml", limit=1 << 28)) < 1 << 16


def test_a_file_that_has_no_size_is_read_whole() -> None:
    """As one that grows while it is read."""
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0 and b"VmHWM" in read_bytes(status)
    with pytest.raises(InputError):
        read_bytes(status, limit=100)


def test_the_limit_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(bytes(2001))
    with pytest.raises(InputError, match="2,000 bytes"):
        read_bytes(tmp_path / "a.yaml", limit=2000)


@pytest.mark.parametrize("error", [ValueError(), AssertionError("")])
def test_an_error_without_words_is_told_by_its_class(error: Exception) -> None:
    with pytest.raises(InputError) as refused, blamed_on(Path("here.json")):
        raise error
    assert type(error).__name__ in str(refused.value)


def test_a_fault_of_any_module_of_ours_is_not_blamed_on_a_file() -> None:
    code = compile("nowhere", "here.py", "eval")
    for module in ("tasks.sampling.stage", "flows.commands.runs", "artifacts"):
        with pytest.raises(NameError), blamed_on(Path("here.json")):
            eval(code, {"__name__": module})
    with pytest.raises(InputError), blamed_on(Path("here.json")):
        eval(code, {"__name__": "library.tasks"})
    with pytest.raises(InputError), blamed_on(Path("here.json")):
        eval(code, {})
