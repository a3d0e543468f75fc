"""How programs that a model wrote are run."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Config, Seconds, Threads, Unkeyed, Whole


class ExecutionConfig(Config):
    """How the programs of functional suites are run. Without a functional suite there are none."""

    seconds: Seconds = 10
    """Wall clock that one program and its test may take."""
    memory_mib: Whole = Field(1024, ge=64, le=1 << 20)
    """Memory of a program, and of its test."""
    workers: Threads | None = Unkeyed(None)
    """Programs at a time; one per processor if null."""
    allow_weak_sandbox: bool = Unkeyed(False)
    """Run the programs even where the sandbox is below its floor: on a machine that you can lose."""
