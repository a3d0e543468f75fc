"""What a server needs before a worker can take runs from it: the pool, the deployments, a watch over dead runs."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY
from prefect.workers.process import ProcessWorker

from artifacts.errors import InputError, StageError
from artifacts.installation import PROJECT, home
from flows import server
from flows.config import PipelineConfig
from flows.deployed import ORPHANED, PATIENCE, RESUME
from flows.processes import own_environment

POOL = "gpu"
SILENT = "runs that fell silent have crashed"
NOT_BEGUN = "runs that do not begin have crashed"
MISSED = 3
"""Signs of life that a run may miss: of one whose machine is gone nobody else would say that it is over."""
BEGINNING = timedelta(seconds=PATIENCE)
"""What a run may take from the moment that a worker takes it to the first line of the flow: as long as the run itself
waits for a server that went away meanwhile (`flows/deployed.py`)."""


def named_server() -> str:
    """The address of the server that PREFECT_API_URL names.

    Raises:
        InputError: it names none.
    """
    api = PREFECT_API_URL.value()
    if not api:
        raise InputError(
            "no server is named",
            field="PREFECT_API_URL",
            remedy="set it, for example to http://127.0.0.1:4200/api; or `codetune up` starts a server as well",
        )
    return str(api).removesuffix("/api")


def check_pool(client: SyncPrefectClient) -> None:
    """See that there is a pool to take runs from.

    Raises:
        InputError: nothing was deployed to this server yet.
    """
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound as error:
        raise InputError(
            f"the server there has no work pool {POOL}",
            field="PREFECT_API_URL",
            remedy="register it and the deployments: `codetune deploy`",
        ) from error


def register(api: str) -> None:
    """Everything, with the server whose API is at `api`.

    Raises:
        StageError: it does not answer, or refuses something.
    """
    with server.Server(api.removesuffix("/api")).ready(), get_client(sync_client=True) as client:
        make_pool(client)
        watch_over_runs(client)
        earlier = {deployment.id: deployment for deployment in client.read_deployments()}
        deploy(api)
        for deployment in client.read_deployments():
            keep_switches(client, earlier.get(deployment.id, deployment), deployment)
        fill_forms(client)


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


def watch_over_runs(
    client: SyncPrefectClient, *, silent: timedelta | None = None, beginning: timedelta = BEGINNING
) -> None:
    """Automations that call a run crashed when nothing is heard of it: it would keep its place in the pool.

    `silent`: how long after its last sign of life, three times the pause between two when left out; `beginning`: how
    long after a worker took it. Prefect takes no less than ten seconds.

    Made anew, they know nothing of the time when there was no server to hear anything: a run that was heard last before
    it would be called crashed, even if it goes on, or was ended and begun again.
    """
    beat, any_state = "prefect.flow-run.heartbeat", "prefect.flow-run.*"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    silent = silent or timedelta(seconds=MISSED * (PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() or 30))
    _watch(client, SILENT, after={"prefect.flow-run.Running", beat}, expect={beat, *ends}, within=silent)
    begins = {f"prefect.flow-run.{state}" for state in ("Pending", "Submitting")}
    _watch(client, NOT_BEGUN, after=begins, expect={any_state}, within=beginning)


def _watch(client: SyncPrefectClient, name: str, *, after: set[str], expect: set[str], within: timedelta) -> None:
    """When one of `after` happened to a run and none of `expect` follows, it has crashed."""
    for before in client.read_automations_by_name(name):
        client.delete_automation(before.id)
    client.create_automation(
        AutomationCore(
            name=name,
            trigger=EventTrigger(
                after=after,
                expect=expect,
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=within,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    message=f"Nothing was heard of this run any more: its process or its machine is gone. {RESUME}",
                )
            ],
        )
    )


def close_runs(client: SyncPrefectClient, worker: str) -> list[FlowRun]:
    """Say of the runs that a worker of this name took and did not end that they are over: it is gone, and so are their
    processes. Each would keep a place in the pool. Returns them."""
    at_work = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=at_work)),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )
    abandoned = [run for run in runs if run.labels.get("prefect.worker.name") == worker]
    for run in abandoned:
        asked = run.state_type == StateType.CANCELLING
        kind = StateType.CANCELLED if asked else StateType.CRASHED
        client.set_flow_run_state(run.id, State(type=kind, message=ORPHANED), force=True)
    return [client.read_flow_run(run.id) for run in abandoned]


def keep_switches(client: SyncPrefectClient, earlier: DeploymentResponse, deployment: DeploymentResponse) -> None:
    """What somebody switched on or off in the dashboard stays so; deploying again sets it back."""
    if deployment.paused != earlier.paused:
        client.update_deployment(deployment.id, DeploymentUpdate(paused=earlier.paused))
    active = {one.schedule.model_dump_json(): one.active for one in earlier.schedules}
    for one in deployment.schedules:
        switched = active.get(one.schedule.model_dump_json(), one.active)
        if switched != one.active:
            client.update_deployment_schedule(deployment.id, one.id, active=switched)


def fill_forms(client: SyncPrefectClient) -> None:
    """Put every setting of a deployment's recipe among its parameters.

    The dashboard's form submits all of its fields. Those that no parameter fills show the defaults, which are the
    reference job's, and would go before the recipe.
    """
    for deployment in client.read_deployments():
        config = deployment.parameters.get("config")
        if config and (deployment.entrypoint or "").startswith("flows."):
            settings = PipelineConfig.model_validate(config).model_dump(mode="json")
            parameters = {**deployment.parameters, "config": settings}
            client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))


def deploy(api: str) -> None:
    """Register every deployment of `prefect.yaml`.

    Raises:
        StageError: Prefect refuses one.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "prefect",
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            str(PROJECT / "prefect.yaml"),
        ],
        cwd=home(),
        env=own_environment(PREFECT_API_URL=api, PWD=str(home())),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StageError(f"prefect.yaml cannot be deployed:\n{(done.stdout + done.stderr).strip()}", remedy="mend it")
