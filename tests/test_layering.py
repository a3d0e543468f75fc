"""`artifacts ← tasks ← flows`, and nothing heavy before it is needed. Held by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "matplotlib"}


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Top-level names of what a module imports; with `everywhere` inside functions and for typing as well."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("artifacts", {"tasks", "flows", "prefect", "torch"}), ("tasks", {"flows"})],
)
def test_packages_depend_in_one_direction(package: str, forbidden: set[str]) -> None:
    found = {path.name: forbidden & set(imports(path, everywhere=True)) for path in modules(package)}
    assert not {name: names for name, names in found.items() if names}


def test_flows_import_nothing_heavy_at_module_level() -> None:
    found = {path.name: HEAVY & set(imports(path, everywhere=False)) for path in modules("flows")}
    assert not {name: names for name, names in found.items() if names}


def test_deploying_loads_no_gpu_stack() -> None:
    code = f"import flows.finetune, sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_class_name_is_given_twice() -> None:
    trees = {
        path: ast.parse(path.read_text("utf-8")) for one in ("artifacts", "tasks", "flows") for path in modules(one)
    }
    found = [
        (node.name, path) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    counted = Counter(name for name, _ in found)
    assert not [(name, str(path)) for name, path in found if counted[name] > 1]
