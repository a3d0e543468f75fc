"""Preflight: can this machine run the job, how, and at what cost? Asked before anything is downloaded or loaded."""

from tasks.backends.contract import JobShape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.judgement import recheck
from tasks.preflight.stage import STAGE, run_preflight

__all__ = ["STAGE", "JobShape", "PreflightConfig", "recheck", "run_preflight"]
