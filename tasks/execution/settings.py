"""How programs that a model wrote are run."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Config, Unkeyed


class ExecutionConfig(Config):
    """How the programs of functional suites are run. Without a functional suite there are none."""

    seconds: float = Field(10, gt=0)
    """Wall clock that one program and its test may take."""
    memory_mib: int = Field(1024, ge=64)
    """Memory of a program, and of its test."""
    workers: int | None = Unkeyed(None, ge=1)
    """Programs at a time; one per processor if null."""
    allow_weak_sandbox: bool = Unkeyed(False)
    """Run the programs even where the sandbox is below its floor: on a machine that you can lose."""
