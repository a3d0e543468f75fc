"""Values that programs return compare as in plain Python; what only says that it is equal does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks import functional
from tasks.functional import Solution
from tests.tasks.functional.suites import row, write

GOOD = {
    "decimal": ("from decimal import Decimal\ndef f(): return Decimal('1.50')", "f() == 1.5 and f() == Decimal('1.5')"),
    "fraction": ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "f() == 0.5"),
    "user list": ("from collections import UserList\ndef f(): return UserList([1, 2])", "f() == [1, 2]"),
    "deque": ("from collections import deque\ndef f(): return deque([1, 2])", "list(f()) == [1, 2]"),
    "keys": ("def f(): return {'a': 1}.keys()", "f() == {'a'}"),
    "counter": ("from collections import Counter\ndef f(): return Counter('aa')", "f() == {'a': 2}"),
    "bytearray": ("def f(): return bytearray(b'a')", "f() == b'a'"),
    "a type": ("def f(kind): return [x for x in (1, 'a', 2.5) if isinstance(x, kind)]", "f(int) == [1]"),
    "types": ("def f(): return [int, str]", "f() == [int, str]"),
    "one number of numpy": ("import numpy\ndef f(): return numpy.int64(3)", "f() == 3"),
    "an array where one is expected": ("import numpy\ndef f(): return numpy.ones((2, 2))", "f().sum() == 4"),
}
BAD = {
    "always equal": ("class E:\n    __eq__ = lambda *a: True\ndef f(): return E()", "f() == 1"),
    "always equal fraction": (
        "from fractions import Fraction\nclass E(Fraction):\n    __eq__ = lambda *a: True\ndef f(): return E(1)",
        "f() == 2",
    ),
    "a class of that name": ("class int: pass\ndef f(): return int", "f() == int"),
    "an array where a list is expected": ("import numpy\ndef f(): return numpy.array([1, 2])", "f() == [1, 2]"),
}


def passes(source: str, condition: str, tmp_path: Path) -> bool:
    test = f"from decimal import Decimal\ndef check(f):\n    assert {condition}\n"
    suite = functional.read_suite(write(tmp_path / "s.jsonl", row(prompt="", entry_point="f", test=test)))
    made = Solution(task_id="T/0", completion=source, is_program=True)
    return next(functional.check(suite, [made])).passed


@pytest.mark.parametrize(("source", "condition"), GOOD.values(), ids=GOOD)
def test_what_is_equal_passes(source: str, condition: str, tmp_path: Path) -> None:
    assert passes(source, condition, tmp_path)


@pytest.mark.parametrize(("source", "condition"), BAD.values(), ids=BAD)
def test_what_is_not_equal_fails(source: str, condition: str, tmp_path: Path) -> None:
    assert not passes(source, condition, tmp_path)


def test_an_integer_of_a_million_digits_travels(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert passes("def f(n): return 1 << n", "f(3_400_000) == 1 << 3_400_000", tmp_path)
    assert time.monotonic() - begun < 5  # in decimal it took a minute
