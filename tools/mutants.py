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
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, TOOL = ROOT / "tools" / "mutmut.txt", ROOT / "build" / "mutmut"
"""mutmut has a folder of its own: with what it brings, pytest-xdist would rename the processes that tests look at."""
TEXTS = [r"^\s*raise ", r"^\s*log\.", r"^\s*return InputError\(", r"^\s*(field|remedy|title|caption)="]
"""Lines, or expressions that begin on them, that hold texts for people."""
VIEW = re.compile(r"^( *def (?:sections|in_words)\(.*:)$", re.M)
"""A function that only makes text."""
SENTENCE = re.compile(r"""f?"[^"]* [^"]*"|f?'[^']* [^']*'""")
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
        ("tasks/tokenization/*",), ("tests/tasks/tokenization",), views=("tasks/tokenization/view.py",)
    ),
    "tasks/sampling": Area(("tasks/sampling/*",), ("tests/tasks/sampling",), views=("tasks/sampling/view.py",)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; all when none is named")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="mutants at once")
    parser.add_argument("--file", default="*", help="pattern of the area's files, for a part of it")
    parser.add_argument("--all-tests", action="store_true", help="the slow tests, too")
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
    wanted = ["--require-hashes", "--no-deps", "--requirement", LOCK, "--target", TOOL]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)


def run(name: str, arguments: argparse.Namespace) -> None:
    area = AREAS[name]
    with tempfile.TemporaryDirectory(prefix="codetune-mutants-") as folder:
        place = Path(folder)
        _copy(place)
        (place / "mutants").mkdir()  # mutmut's; a folder that is not there when Python starts, Python never looks into
        _configure(place, area, arguments)
        # Programs that tests start import the changed code, too.
        places = f"{place / 'mutants'}{os.pathsep}{TOOL}"
        environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        mutmut = partial(subprocess.run, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
        command = [sys.executable, TOOL / "bin" / "mutmut"]
        done = mutmut([*command, "run", "--max-children", str(arguments.children)], stderr=subprocess.STDOUT)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nmutmut ended with status {done.returncode}")
        _report(name, lambda *words: mutmut([*command, *words], check=True).stdout)


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
        "pytest_add_cli_args": ["-k", skipped] if skipped and not arguments.all_tests else [],
        "timeout_constant": 2.0,
        "timeout_multiplier": 8.0,
        "process_isolation": "forkserver",  # torch's and pyarrow's threads do not survive a fork
        "use_git_change_detection": False,
        "use_setproctitle": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]  # as TOML has them, too
    with (place / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))


def _report(name: str, mutmut: Callable[..., str]) -> None:
    verdicts = {}
    for line in mutmut("results", "--all", "true").splitlines():
        mutant, _, verdict = line.strip().rpartition(": ")
        verdicts[mutant] = verdict
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
    print(f"{name}: {len(verdicts)} mutants, {killed} killed, {others or 'none survived'}", flush=True)


def _of_a_sentence(change: str) -> bool:
    """Whether a diff is inside of a text with spaces."""
    lines = [line for line in change.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    sides = [[SENTENCE.sub('""', line[1:]) for line in lines if line.startswith(sign)] for sign in "-+"]
    return sides[0] == sides[1]


if __name__ == "__main__":
    raise SystemExit(main())
