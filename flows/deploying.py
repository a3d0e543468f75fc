"""What a server needs before a worker can take runs from it: the pool, the deployments, a watch over dead runs."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY
from prefect.workers.process import ProcessWorker

from artifacts.errors import StageError
from flows.environment import PROJECT
from flows.processes import own_environment

POOL = "gpu"
WATCH = "runs that fell silent have crashed"
MISSED = 3
"""Signs of life that a run may miss: of one that is killed with its worker nobody else would say that it is over."""


def make_pool(client: SyncPrefectClient) -> None:
    """The pool with one run at a time, if there is none yet; one that exists stays as it was set up."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(
                name=POOL,
                type="process",
                description="Runs that need the card, one at a time.",
                base_job_template=template,
                concurrency_limit=1,
            )
        )


def watch_for_silence(client: SyncPrefectClient) -> None:
    """An automation that calls a run crashed when its heartbeat stays away: it would keep the pool's slot."""
    if client.read_automations_by_name(WATCH):
        return
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    beat = "prefect.flow-run.heartbeat"
    client.create_automation(
        AutomationCore(
            name=WATCH,
            trigger=EventTrigger(
                after={beat},
                expect={beat, *ends},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=MISSED * (PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() or 30)),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message="Nothing was heard of this run any more: its process or its machine is gone. Finished "
                    "stages are kept and training continues at its last checkpoint: press Retry.",
                )
            ],
        )
    )


def deploy(api: str) -> None:
    """Register every deployment of `prefect.yaml`.

    Raises:
        StageError: Prefect refuses one.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT,
        env=own_environment(PREFECT_API_URL=api, PWD=str(PROJECT)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StageError(f"prefect.yaml cannot be deployed:\n{(done.stdout + done.stderr).strip()}", remedy="mend it")
