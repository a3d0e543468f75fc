"""Execution: the programs that the models wrote for functional suites, run against the suites' tests in the sandbox.

Needs no model. What was run is kept, so that another margin runs nothing again.

    reasons     a verdict → why, in few words
    stage       programs → verdicts
"""

from tasks.execution.config import ExecutionConfig
from tasks.execution.stage import SHIPPED, STAGE, check_sandbox, run_execution

__all__ = ["SHIPPED", "STAGE", "ExecutionConfig", "check_sandbox", "run_execution"]
