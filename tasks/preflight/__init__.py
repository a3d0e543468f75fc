"""Preflight: can this machine run the job, how, and at what cost? Asked before anything is downloaded or loaded."""

from artifacts.schema import PreflightReport
from tasks.preflight.config import JobShape
from tasks.preflight.judgement import recheck
from tasks.preflight.planning import PreflightConfig
from tasks.preflight.stage import machine_fingerprint, run_preflight
from tasks.preflight.view import sections
from tasks.running.stage import Stage

STAGE = Stage(
    name="preflight",
    version=2,
    run=run_preflight,
    produces=PreflightReport,
    sections=sections,
    identify=machine_fingerprint,
    instant=True,
)

__all__ = ["STAGE", "JobShape", "PreflightConfig", "recheck", "run_preflight", "sections"]
