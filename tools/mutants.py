"""Say which changes of the code no test would notice: `make mutants`, `make mutants ONLY=tasks/gate`.

mutmut changes one operator, number, argument, condition or string at a time and runs the tests that come by. Each area
is a copy of the checkout in a temporary folder, with the tests of that area only: what is slow there is left out, for
each test runs hundreds of times. docs/testing.md has the figures and says which survivors change nothing.

Not covered: what runs at import (constants, fields of a class and their bounds), decorated functions, and texts for
people, whose words no test should pin: messages of errors and of the log, views, and of what survives the changes that
are inside of a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK, TOOL = ROOT / "tools" / "mutmut.txt", ROOT / "build" / "mutmut"
"""mutmut has a folder of its own: with what it brings, pytest-xdist would rename the processes that tests look at."""
TEXTS = [r"^\s*raise ", r"^\s*log\.", r"^\s*return InputError\(", r"^\s*(field|remedy|title|caption)="]
"""Lines, or expressions that begin on them, that hold texts for people."""
VIEW = re.compile(r"^( *def (?:sections|in_words)\(.*:)$", re.M)
"""A function that only makes text."""
STRING = re.compile(r"""f?"[^"]*"|f?'[^']*'""")
KILLED = {"killed"}
"""A mutant that ran out of time is counted apart: on a busy machine that says little."""


@dataclass(frozen=True)
class Area:
    sources: tuple[str, ...]
    """Patterns of the files that are changed."""
    tests: tuple[str, ...]
    """What runs: files, folders."""
    views: tuple[str, ...] = ()
    """Patterns of files among `sources` that only make text."""
    slow: tuple[str, ...] = ()
    """Tests among `tests` that are left out, by a part of their name."""


SIMULATED = ("cover_95_percent", "rarely_called", "false_certainty", "80_of_100", "not_called_kept", "how_often")

AREAS = {
    "tasks/gate": Area(("tasks/gate/*",), ("tests/tasks/gate",)),
    "tasks/statistics": Area(("tasks/statistics/*",), ("tests/tasks/statistics",), slow=SIMULATED),
    "artifacts/store": Area(
        tuple(f"artifacts/{name}.py" for name in ("store", "reading", "garbage", "pruning", "durable")),
        tuple(f"tests/artifacts/test_{name}.py" for name in ("store", "reading", "garbage", "pruning", "durable")),
    ),
    "tasks/tokenization": Area(
        ("tasks/tokenization/*", "tasks/models/vocabulary.py", "tasks/models/healing.py"),
        (
            "tests/tasks/tokenization",
            "tests/tasks/models/test_vocabulary.py",
            "tests/tasks/models/test_description.py",
            "tests/tasks/generation/test_healing.py",
        ),
        views=("tasks/tokenization/view.py",),
        slow=("memory_does_not_grow", "by_heart"),
    ),
    "tasks/sampling": Area(
        ("tasks/sampling/*",),
        ("tests/tasks/sampling",),
        views=("tasks/sampling/view.py",),
        slow=("damaged_by_chance", "giant", "folders_deeper", "1200_nested", "further_shards"),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; all when none is named")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="mutants at once")
    parser.add_argument("--file", default="*", help="pattern of the area's files, for a part of it")
    parser.add_argument("--all-tests", action="store_true", help="the slow tests, too")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="only so many of an area's mutants, the same ones each time"
    )
    parser.add_argument(
        "--folder", type=Path, help="is kept; a run that broke off goes on there, with the code as it was"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.areas if name not in AREAS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such area; there are {', '.join(AREAS)}")
    _install()
    for name in arguments.areas or AREAS:
        run(name, arguments)
    return 0


def _install() -> None:
    if TOOL.exists() and TOOL.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    shutil.rmtree(TOOL, ignore_errors=True)
    wanted = ["--require-hashes", "--no-deps", "--requirement", str(LOCK), "--target", str(TOOL)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)


def run(name: str, arguments: argparse.Namespace) -> None:
    if arguments.folder:
        _run(name, arguments, arguments.folder.resolve() / name.replace("/", "-"))
        return
    with tempfile.TemporaryDirectory(prefix="codetune-mutants-") as folder:
        _run(name, arguments, Path(folder))


def _run(name: str, arguments: argparse.Namespace, place: Path) -> None:
    # mutmut's own folder last; one that is not there when Python starts, Python never looks into.
    if not (place / "mutants").exists():
        _copy(place)
        _configure(place, AREAS[name], arguments)
        (place / "mutants").mkdir()
    # Programs that tests start import the changed code, too.
    places = f"{place / 'mutants'}{os.pathsep}{TOOL}"
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOL / "bin" / "mutmut")]

    def mutmut(*words: str, status: int = 0) -> str:
        done = subprocess.run([*command, *words], cwd=place, env=environment, capture_output=True, text=True)
        if done.returncode != status:
            raise SystemExit(f"{done.stdout}{done.stderr}\nmutmut ended with status {done.returncode}")
        return done.stdout

    mutmut("run", "of no mutant", status=1)  # makes them all, and sees which tests reach which
    verdicts = _verdicts(mutmut)
    names = sorted(verdicts)
    random.Random(0).shuffle(names)  # a larger sample has all of a smaller one
    left = [mutant for mutant in names[: arguments.sample] if verdicts[mutant] == "not checked"]
    if left:
        mutmut("run", "--max-children", str(arguments.children), *left)
    late = [mutant for mutant, verdict in _verdicts(mutmut).items() if verdict == "timeout"]
    if late:
        mutmut("run", "--max-children", "1", *late)  # each by itself, before it counts as out of time
    _report(name, mutmut)


def _verdicts(mutmut: Callable[..., str]) -> dict[str, str]:
    lines = (line.strip().rpartition(": ") for line in mutmut("results", "--all", "true").splitlines())
    return {mutant: verdict for mutant, _, verdict in lines}


def _copy(place: Path) -> None:
    """The checkout as it is, without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for path in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / path).is_file():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            content = (ROOT / path).read_bytes()
            if path.endswith(".py"):
                content = VIEW.sub(r"\1  # pragma: no mutate block", content.decode()).encode()
            (place / path).write_bytes(content)


def _configure(place: Path, area: Area, arguments: argparse.Namespace) -> None:
    skipped = " and ".join(f"not {name}" for name in area.slow)
    settings = {
        "source_paths": ["artifacts", "tasks", "flows"],
        "only_mutate": [pattern.replace("*", arguments.file) for pattern in area.sources],
        "do_not_mutate": list(area.views),
        "do_not_mutate_patterns": TEXTS,
        "also_copy": ["models", "tools", "bench", "docs", "prefect.toml", "prefect.yaml", "README.md"],
        "pytest_add_cli_args_test_selection": list(area.tests),
        "pytest_add_cli_args": ["-p", "tools.mutants", *(["-k", skipped] if not arguments.all_tests else [])],
        "timeout_constant": 2.0,
        "timeout_multiplier": 8.0,
        "process_isolation": "forkserver",  # torch's and pyarrow's threads do not survive a fork
        "use_git_change_detection": False,
        "use_setproctitle": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]  # as TOML has them, too
    with (place / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As pytest's plugin, in the copy: short files and tests first, for the first that fails ends a mutant."""
    measured = Path("mutmut-stats.json")
    if measured.exists():
        seconds = json.loads(measured.read_text())["duration_by_test"]
        files: Counter[Path] = Counter()
        for item in items:
            files[item.path] += seconds.get(item.nodeid, 0.0)
        items.sort(key=lambda item: (files[item.path], str(item.path), seconds.get(item.nodeid, 0.0)))


def _report(name: str, mutmut: Callable[..., str]) -> None:
    every = _verdicts(mutmut)
    verdicts = {mutant: verdict for mutant, verdict in every.items() if verdict != "not checked"}
    for mutant, verdict in verdicts.items():
        if verdict not in KILLED:
            change = mutmut("show", mutant)
            if _of_a_sentence(change):
                verdicts[mutant] = "only words"
            else:
                print(change)
    counted = Counter(verdicts.values())
    killed = sum(counted[verdict] for verdict in KILLED)
    others = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counted.items()) if verdict not in KILLED)
    tried = f"{len(every)} mutants, {len(verdicts)} tried"
    print(f"{name}: {tried}, {killed} killed, {others or 'none survived'}", flush=True)


def _of_a_sentence(change: str) -> bool:
    """Whether a diff is inside of a text with spaces."""
    lines = [line for line in change.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    sides = [[STRING.sub(_without_words, line[1:]) for line in lines if line.startswith(sign)] for sign in "-+"]
    return sides[0] == sides[1]


def _without_words(string: re.Match[str]) -> str:
    return '""' if " " in string[0] else string[0]


if __name__ == "__main__":
    raise SystemExit(main())
