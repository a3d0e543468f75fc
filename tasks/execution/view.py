"""What a person is shown of programs that were run."""

from __future__ import annotations

from artifacts.escaping import quoted
from artifacts.presentation import Section, Table, Text
from artifacts.schema import Executions


def sections(handle: Executions) -> list[Section]:
    """How many programs, and what held them in check."""
    rows = [("programs run", f"{handle.programs:,}"), ("sandbox", handle.protection.level)]
    if handle.stopped:
        rows.append(("passed by raising StopIteration", f"{handle.stopped:,}"))
    held = Table(("layer", "how"), tuple(handle.protection.layers.items()))
    blocks = [Table(("programs that the models wrote", ""), tuple(rows)), held]
    problem = [Text(f"**Weak**: {quoted(handle.protection.problem)}")] if handle.protection.problem else []
    return [Section("execution", "Programs in the sandbox", (*problem, *blocks))]
