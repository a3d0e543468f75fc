"""What a server needs before a worker can take runs from it: the pool, the deployments, a watch over dead runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Container, Iterable
from datetime import timedelta
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
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

from artifacts.errors import InputError, StageError
from artifacts.installation import PROJECT, home
from flows import keeping, labour, server
from flows.config import PipelineConfig, refuse_secrets
from flows.deployed import ORPHANED, RESUME, WAIT_SECONDS
from flows.processes import own_environment

POOL = "gpu"
SILENT = "runs that fell silent have crashed"
NOT_BEGUN = "runs that do not begin have crashed"
MISSED = 3
"""Signs of life that a run may miss: of one whose machine is gone nobody else would say that it is over."""
BEGINNING = timedelta(seconds=WAIT_SECONDS)
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
    return server.named(str(api))


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


def register(there: server.Server, *, reset: bool = False) -> list[str]:
    """Everything, with a server. What people changed there stays, unless `reset`; returns what they should hear of
    that.

    Raises:
        InputError: the file holds a secret.
        StageError: it does not answer, or refuses something.
    """
    with there.ready(), get_client(sync_client=True) as client:
        make_pool(client)
        watch_over_runs(client)
        return _deploy_keeping(client, there, reset)


def _deploy_keeping(client: SyncPrefectClient, there: server.Server, reset: bool) -> list[str]:
    files = {one["name"]: one for one in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]}
    for name, one in files.items():  # before a server keeps any of it
        refuse_secrets({name: one.get("parameters")})
    memory = keeping.DeploymentRecord() if reset else keeping.recall(client)
    before = memory.before or {name: keeping.state_of(one) for name, one in _ours(client, files).items()}
    deleted = set() if reset else memory.deployed.keys() - before.keys()
    said = [f"{name} was deleted in the dashboard and stays so" for name in files if name in deleted]
    keeping.remember(client, memory.model_copy(update={"before": before}))
    if names := [name for name in files if name not in deleted]:
        deploy(there, names)
    filed = {name: memory.deployed[name] for name in files if name in deleted}
    for name, deployment in _ours(client, names).items():
        state = keeping.state_of(deployment)
        filed[name] = state | {
            "parameters": expanded(deployment),
            # Prefect leaves the schedules alone when the file has none.
            "schedules": state["schedules"] if files[name].get("schedules") else {},
        }
        wanted, conflicts = filed[name], list[str]()
        if name in before and not reset:
            wanted, conflicts = keeping.merged(memory.deployed.get(name), filed[name], before[name])
        keeping.bring_about(client, deployment, wanted)
        said += [f"{name}, {conflict}" for conflict in conflicts]
    keeping.remember(client, keeping.DeploymentRecord(deployed=filed))
    return [*said, "`codetune deploy --reset` takes what the files say"] if said else []


def _ours(client: SyncPrefectClient, names: Container[str]) -> dict[str, DeploymentResponse]:
    """The deployments of `prefect.yaml` that the server has, by name."""
    return {
        one.name: one
        for one in client.read_deployments()
        if one.name in names and (one.entrypoint or "").startswith("flows.")
    }


def make_pool(client: SyncPrefectClient) -> None:
    """The pool with one run at a time, if there is none yet; one that exists stays as it was set up, but for what a run
    may say of its command."""
    template = labour.template()
    try:
        if client.read_work_pool(POOL).base_job_template != template:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=POOL,
                type="process",
                description="Runs that need the GPU, one at a time.",
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
    earlier = client.read_automations_by_name(name)
    for before in earlier:
        client.delete_automation(before.id)
    client.create_automation(
        AutomationCore(
            name=name,
            enabled=all(before.enabled for before in earlier),  # somebody may have switched it off
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


def expanded(deployment: DeploymentResponse) -> dict[str, Any]:
    """The parameters of a deployment with every setting of its recipe among them.

    The dashboard's form submits all of its fields. Those that no parameter fills show the defaults, which are the
    reference job's, and would go before the recipe.
    """
    config = deployment.parameters.get("config")
    if not config:
        return deployment.parameters
    return {**deployment.parameters, "config": PipelineConfig.model_validate(config).model_dump(mode="json")}


def deploy(there: server.Server, names: Iterable[str]) -> None:
    """Register deployments of `prefect.yaml`, by name.

    Raises:
        StageError: Prefect refuses one.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "flows.labour",  # Prefect's command
            "--no-prompt",
            "deploy",
            *(f"--name={name}" for name in names),
            "--prefect-file",
            str(PROJECT / "prefect.yaml"),
        ],
        cwd=home(),
        env=own_environment(**there.variables, PWD=str(home())),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StageError(f"prefect.yaml cannot be deployed:\n{(done.stdout + done.stderr).strip()}", remedy="mend it")
