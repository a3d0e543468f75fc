"""Which programs a server may have run here: the flows of this project, whatever a deployment names.

A deployment of Prefect's names code, and steps to be done before it: any command. They are done in the process of a
run, and by a worker itself where a run of its was cancelled or killed, to find out who is to be told.
"""

from __future__ import annotations

import sys
from typing import Any

from artifacts.errors import InputError

FLOWS = ("flows.finetune.finetune", "flows.reevaluation.reevaluate")
"""As the entrypoint of a deployment names them."""
_PLACE = "prefect.deployments.steps.set_working_directory"
"""The one thing that a deployment may have done before."""


def folders(deployment: Any) -> list[str]:
    """Where the run of a deployment goes to before it begins.

    Raises:
        InputError: it names other code, or has something else done before.
    """
    for step in deployment.pull_steps or ():
        said = step.get(_PLACE)
        if list(step) != [_PLACE] or not isinstance(said, dict) or not isinstance(said.get("directory"), str):
            raise InputError(
                f"a deployment cannot have {', '.join(step)} done before a run",
                field="pull",
                remedy=f"leave it out: only {_PLACE} is done",
            )
    if deployment.entrypoint not in FLOWS:
        raise InputError(
            f"a deployment cannot have {deployment.entrypoint} run",
            field="entrypoint",
            remedy=f"name one of {', '.join(FLOWS)}",
        )
    return [step[_PLACE]["directory"] for step in deployment.pull_steps or ()]


def load(entrypoint: str) -> Any:
    """One of `FLOWS`."""
    from prefect.flows import load_flow_from_entrypoint

    return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)


def keep_to_ours() -> None:
    """From now on, wherever Prefect loads the flow of a run in this process, it loads one of ours and does no steps."""
    from prefect import flows

    theirs = flows.load_flow_from_flow_run
    for name, module in list(sys.modules.items()):
        if name.startswith("prefect") and vars(module).get("load_flow_from_flow_run") is theirs:
            module.load_flow_from_flow_run = _of_run  # type: ignore[attr-defined]


async def _of_run(flow_run: Any, **_: Any) -> Any:
    from prefect.client.orchestration import get_client

    if flow_run.deployment_id is None:
        raise ValueError("the run has no deployment")
    async with get_client() as client:
        deployment = await client.read_deployment(flow_run.deployment_id)
    folders(deployment)
    return load(deployment.entrypoint or "")
