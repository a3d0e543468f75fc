"""The command `prefect` in a process that works for this project: `python -m flows.labour worker start --pool gpu`.

A worker of Prefect's runs whatever command, in whatever folder and environment, a run or its deployment names. This one
runs one command, and refuses a run that names another: which programs run here is not for a request to say. Nor which
flow it loads to hear who is to be told of a run's end (`flows/programs.py`).
"""

from __future__ import annotations

import runpy
import sys
from typing import Any, Self

from prefect.client.orchestration import PrefectClient
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from artifacts.errors import InputError
from flows import programs

COMMAND = "python -P -m flows.deployed"
"""Prefect's own engine, in a process that ends with its worker and outlives a server that goes away."""
FREE = {"name", "labels", "stream_output"}
"""What of a job a run may say."""
_FORMER = "python -m flows.deployed"


class JobConfiguration(ProcessJobConfiguration):
    """What the worker makes of a run."""

    @classmethod
    async def from_template_and_values(
        cls, base_job_template: dict[str, Any], values: dict[str, Any], client: PrefectClient | None = None
    ) -> Self:
        """The job of a run, from what it and its deployment say; the pool's template says nothing that counts.

        Raises:
            InputError: they name something that is not for them to say.
        """
        del base_job_template
        refused = [
            name for name, value in values.items() if name not in FREE and value not in (None, {}, COMMAND, _FORMER)
        ]
        if refused:
            raise InputError(
                f"a run cannot say which {' and '.join(sorted(refused))} it has",
                field="job_variables",
                remedy="leave it out of the run and of its deployment; set the worker's own environment instead",
            )
        free = {name: value for name, value in values.items() if name in FREE}
        return await super().from_template_and_values(template(), free, client=client)


def template() -> dict[str, Any]:
    """The pool's: whoever asks for a run is told by the server, too, what is not for him to say."""
    made = ProcessWorker.get_default_base_job_template()
    variables, job = made["variables"], made["job_configuration"]
    variables["properties"] = {name: one for name, one in variables["properties"].items() if name in FREE}
    variables["additionalProperties"] = False
    fixed: dict[str, Any] = {"command": COMMAND, "env": {}, "working_dir": None}
    return {**made, "job_configuration": {name: fixed.get(name, one) for name, one in job.items()}}


if __name__ == "__main__":
    ProcessWorker.job_configuration = JobConfiguration
    programs.keep_to_ours()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__")
