"""Say which changes of the code no test would notice: `make mutants`, `make mutants ONLY=tasks/gate`.

mutmut changes one operator, number, argument, condition or string at a time and runs the tests that come by. Each area
is a copy of the checkout in a temporary folder, with the tests of that area only: what is slow there is left out, for
each test runs hundreds of times. docs/testing.md has the figures and says which survivors change nothing.

Not covered: what runs at import (constants, fields of a class and their bounds), decorated functions, and the texts
that are for people, whose words no test should pin: messages of errors and of the log, views.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [r"^\s*raise ", r"^\s*log\.", r"^\s*return InputError\(", r"^\s*(field|remedy|title|caption)="]
"""Lines, or expressions that begin on them, that hold texts for people."""
KILLED = {"killed", "timeout", "segfault"}
"""A mutant that never ends, or that ends the process, is noticed, too."""


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


AREAS = {
    "tasks/gate": Area(("tasks/gate/*",), ("tests/tasks/gate",)),
    "tasks/statistics": Area(("tasks/statistics/*",), ("tests/tasks/statistics",), slow=("cover_95_percent",)),
    "artifacts/store": Area(
        tuple(f"artifacts/{name}.py" for name in ("store", "reading", "garbage", "pruning", "ledger", "digest")),
        tuple(f"tests/artifacts/test_{name}.py" for name in ("store", "reading", "garbage", "pruning", "lineage")),
    ),
    "tasks/tokenization": Area(
        ("tasks/tokenization/*",), ("tests/tasks/tokenization",), views=("tasks/tokenization/show.py",)
    ),
    "tasks/sampling": Area(("tasks/sampling/*",), ("tests/tasks/sampling",), views=("tasks/sampling/showing.py",)),
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
    for name in arguments.areas or AREAS:
        run(name, arguments)
    return 0


def run(name: str, arguments: argparse.Namespace) -> None:
    area = AREAS[name]
    with tempfile.TemporaryDirectory(prefix="codetune-mutants-") as folder:
        place = Path(folder)
        _copy(place)
        (place / "mutants").mkdir()  # mutmut's; a folder that is not there when Python starts, Python never looks into
        _configure(place, area, arguments)
        # Programs that tests start import the changed code, too.
        environment = {**os.environ, "PYTHONPATH": str(place / "mutants"), "OMP_NUM_THREADS": "1"}
        mutmut = Path(sys.executable).with_name("mutmut")
        done = subprocess.run(
            [mutmut, "run", "--max-children", str(arguments.children)],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nmutmut ended with status {done.returncode}")
        _report(name, place, mutmut)


def _copy(place: Path) -> None:
    """The checkout as it is, without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for path in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / path).is_file():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes((ROOT / path).read_bytes())


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
    }
    # A JSON list of strings, a number, a string are TOML as well.
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with (place / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))


def _report(name: str, place: Path, mutmut: Path) -> None:
    verdicts = {}
    listed = subprocess.check_output([mutmut, "results", "--all", "true"], cwd=place, text=True)
    for line in listed.splitlines():
        mutant, _, verdict = line.strip().rpartition(": ")
        verdicts[mutant] = verdict
    for mutant, verdict in verdicts.items():
        if verdict not in KILLED:
            print(subprocess.check_output([mutmut, "show", mutant], cwd=place, text=True))
    counted = Counter(verdicts.values())
    killed = sum(counted[verdict] for verdict in KILLED)
    others = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counted.items()) if verdict not in KILLED)
    print(f"{name}: {len(verdicts)} mutants, {killed} killed, {others or 'none survived'}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
