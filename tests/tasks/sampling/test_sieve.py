"""Each filter drops what it should, keeps ordinary code, and can be turned off."""

from __future__ import annotations

import base64
import random
import sysconfig
import time
from pathlib import Path

import pytest

from tasks.sampling.candidates import Row
from tasks.sampling.configuration import QualityFilters, SamplingConfig
from tasks.sampling.sieve import Sieve, judge_quality
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import PROGRAM, dropped, everything, programs, write_jsonl

NOISE = base64.b64encode(random.Random(0).randbytes(1200)).decode()
CODE = PROGRAM.format(0)

FAILING = {
    "line too long": (CODE * 10 + "x = '" + "words and " * 120 + "'\n", {"max_line_length": None}),
    "lines too long on average": (("y = call(" + "argument, " * 20 + ")\n") * 5, {"max_mean_line_length": None}),
    "generated": ("# This file was Automatically Generated\n" + CODE, {"drop_generated": False}),
    "too few letters and digits": ("()[]{}+-*/\n" * 20, {"min_alphanumeric": None, "min_alphabetic": None}),
    "too few letters": ("1234567890, 12\n" * 20, {"min_alphabetic": None, "max_encoded_share": None}),
    "encoded data": (CODE * 40 + "\n".join(NOISE[i : i + 76] for i in range(0, 1600, 76)), {"max_encoded_run": None}),
}


@pytest.mark.parametrize("reason", FAILING)
def test_filter_names_itself_and_can_be_turned_off(reason: str) -> None:
    text, off = FAILING[reason]
    assert judge_quality(text, QualityFilters()) == reason
    assert judge_quality(text, QualityFilters.model_validate(off)) is None


@pytest.mark.parametrize("data", [r"\u00e9\u00df" * 60, "0x12,0xab," * 100, "12 ab ff " * 100])
def test_file_that_is_mostly_encoded_is_dropped(data: str) -> None:
    assert judge_quality("data = " + data, QualityFilters(max_line_length=None, max_mean_line_length=None)) == (
        "encoded data"
    )


@pytest.mark.parametrize("beyond_ascii", ["", "é", "日本語"])
def test_share_of_letters_is_counted_alike_beyond_ascii(beyond_ascii: str) -> None:
    text = "ab1_\n" * 20 + beyond_ascii
    letters = sum(character.isalpha() for character in text) / len(text)
    for least, reason in ((letters - 0.001, None), (letters + 0.001, "too few letters")):
        assert judge_quality(text, QualityFilters(min_alphabetic=least)) == reason


def test_ordinary_code_passes() -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in ("argparse.py", "json/decoder.py", "collections/__init__.py", "typing.py"):
        assert judge_quality((library / name).read_text(), QualityFilters()) is None


def test_broken_contents_are_dropped_with_their_reason(sample: Sample, tmp_path: Path) -> None:
    code = tmp_path / "code"
    for number, record in enumerate(programs(6)):
        (code / f"part{number}").mkdir(parents=True)
        (code / f"part{number}" / "good.py").write_text(record["content"])
    (code / "part0" / "latin.py").write_bytes("name = 'Grüße'\n".encode("latin-1"))
    (code / "part0" / "nul.py").write_bytes(b"x = 1\0\n")
    (code / "part0" / "pointer.py").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\n")
    (code / "part0" / "blank.py").write_text(" \n\n")
    (code / "part0" / "huge.py").write_bytes(b"a" * 50_000_000)
    result = sample(source={"kind": "local", "paths": [str(code)]})
    reasons = ("not UTF-8", "NUL bytes", "pointer of Git LFS", "empty", "too large")
    assert dropped(result, "content") == dict.fromkeys(reasons, 1)
    assert {row["path"].split("/")[-1] for row in everything(result)} == {"good.py"}


def test_filters_stay_linear_on_one_huge_line() -> None:
    started = time.monotonic()
    off = QualityFilters.model_validate({"max_line_length": None, "max_mean_line_length": None})
    for text in ("ab " * 300_000, "\\u00e" * 200_000, "0x1" * 300_000, "a" * 1_000_000):
        judge_quality(text, off)
    assert time.monotonic() - started < 5


def test_licences_count_only_where_the_source_states_them(sample: Sample, tmp_path: Path) -> None:
    records = programs(10, license="MIT") + [
        {**r, "content": r["content"] + "#", "license": "gpl-3.0"} for r in programs(5)
    ]
    path = write_jsonl(tmp_path / "t.jsonl", records)
    columns = {"content": "content", "repo": "repo", "path": "path"}
    stated = sample(source={"kind": "table", "paths": [path], "columns": {**columns, "license": "license"}})
    assert stated.licenses == {"MIT": 10} and dropped(stated, "license") == {"GPL-3.0-only": 5}
    assert sample(source={"kind": "table", "paths": [path], "columns": columns}).licenses == {"unknown": 15}


def test_several_licences_must_all_be_allowed() -> None:
    sieve = Sieve(SamplingConfig(), check_licenses=True)
    rows = [Row("r", "p.py", name, "Python", "") for name in ("ISC AND MIT", "GPL-3.0-only AND MIT", "unknown")]
    assert [sieve.judge_row(row) for row in rows] == [None, ("license", "GPL-3.0-only AND MIT"), ("license", "unknown")]
