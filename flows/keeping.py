"""What people did to deployments in the dashboard outlives another `codetune up` or `codetune deploy`.

Three states are compared, setting by setting: what was deployed last, what the files say now, what the server has. What
only the files changed is taken from them, what only people changed stays. Where both did, people's stays and it is
said. The server itself keeps what was deployed last, as an artifact: whoever deploys next may be on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.responses import DeploymentResponse
from pydantic import Field, ValidationError

from artifacts.schema import Record
from flows import labour
from flows.config import PipelineConfig

KEY = "codetune-deployments"
State = dict[str, Any]
"""Of a deployment: what both the files and people decide, by name."""
_ABSENT: Any = object()


class DeploymentRecord(Record):
    """What the next one who deploys needs to know."""

    deployed: dict[str, State] = Field(default_factory=dict)
    """By deployment, what the files said last."""
    before: dict[str, State] | None = None
    """What the server had, while somebody deploys: if that is cut short, it is what counts."""


def recall(client: SyncPrefectClient) -> DeploymentRecord:
    """What was deployed last; nothing when that is not known."""
    found = client.read_artifacts(artifact_filter=_OURS)
    for artifact in sorted(found, key=lambda one: str(one.created), reverse=True):
        try:
            return DeploymentRecord.model_validate(artifact.data)
        except ValidationError:
            continue
    return DeploymentRecord()


def remember(client: SyncPrefectClient, memory: DeploymentRecord) -> None:
    """Keep it in the place of what was kept before."""
    earlier = client.read_artifacts(artifact_filter=_OURS)
    what = "What `codetune deploy` registered last: it tells by this what was changed in the dashboard since."
    client.create_artifact(ArtifactCreate(key=KEY, type="json", description=what, data=memory.model_dump(mode="json")))
    for artifact in earlier:
        client.delete_artifact(artifact.id)


def state_of(deployment: DeploymentResponse) -> State:
    """What it has now."""
    limit = deployment.global_concurrency_limit
    return {
        "description": deployment.description,
        "paused": deployment.paused,
        "tags": dict.fromkeys(sorted(deployment.tags), True),
        "parameters": deployment.parameters,
        # The pool takes no others; what was deployed before it refused them may have some.
        "job variables": {name: value for name, value in deployment.job_variables.items() if name in labour.FREE},
        "concurrency limit": limit.limit if limit else None,
        "concurrency options": _plain(deployment.concurrency_options),
        "work queue": deployment.work_queue_name,
        "work pool": deployment.work_pool_name,
        "enforced schema": deployment.enforce_parameter_schema,
        "schedules": {_name_of(one): _plain(one, "schedule", *_OF_SCHEDULES) for one in deployment.schedules},
    }


def merge(deployed: Any, filed: Any, served: Any, conflicts: list[str], path: str = "") -> Any:
    """Of one value the one to have; `conflicts` gets a sentence where both sides changed it."""
    if filed == deployed or served == filed:
        return served
    if served == deployed:
        return filed
    if isinstance(filed, dict) and isinstance(served, dict) and filed.get("kind") == served.get("kind"):
        base = deployed if isinstance(deployed, dict) else {}
        merged = {}
        for name in {**served, **filed}:
            sides = (base.get(name, _ABSENT), filed.get(name, _ABSENT), served.get(name, _ABSENT))
            merged[name] = merge(*sides, conflicts=conflicts, path=f"{path}.{name}" if path else name)
        return {name: value for name, value in merged.items() if value is not _ABSENT}
    conflicts.append(f"{path}: the dashboard says {_shown(served)}, the files now say {_shown(filed)}")
    return served


def merged(deployed: State | None, filed: State, served: State) -> tuple[State, list[str]]:
    """The state to have, and where files and people disagree. Of a server whose last deployment is not known, people's
    counts throughout."""
    conflicts: list[str] = []
    wanted = merge(filed if deployed is None else deployed, filed, served, conflicts)
    if wanted["parameters"] != filed["parameters"] and not _usable(wanted["parameters"]):
        wanted = {**wanted, "parameters": filed["parameters"]}
        conflicts.append("parameters: this version does not take what the dashboard says; the files' are used")
    return wanted, conflicts


def bring_about(client: SyncPrefectClient, deployment: DeploymentResponse, wanted: State) -> None:
    """Give a deployment the state to have, touching no more than differs."""
    now = state_of(deployment)
    changes: dict[str, Any] = {_FIELDS[name]: wanted[name] for name in _FIELDS if wanted[name] != now[name]}
    if "tags" in changes:
        changes["tags"] = list(changes["tags"])
    if {"work_queue_name", "work_pool_name"} & changes.keys():
        changes |= {"work_queue_name": wanted["work queue"], "work_pool_name": wanted["work pool"]}
    if changes:
        client.update_deployment(deployment.id, DeploymentUpdate(**changes))
    _schedule(client, deployment, wanted["schedules"], now["schedules"])


def _schedule(client: SyncPrefectClient, deployment: DeploymentResponse, wanted: State, now: State) -> None:
    ids: Mapping[str, UUID] = {_name_of(one): one.id for one in deployment.schedules}
    for name in now:
        if wanted.get(name) != now[name]:
            client.delete_deployment_schedule(deployment.id, ids[name])
    new = [DeploymentScheduleCreate.model_validate(wanted[name]) for name in wanted if wanted[name] != now.get(name)]
    if new:
        client.create_deployment_schedules(deployment.id, new)


_OURS = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]))
_OF_SCHEDULES = ("active", "parameters", "slug", "max_scheduled_runs")
_FIELDS = {
    "description": "description",
    "paused": "paused",
    "tags": "tags",
    "parameters": "parameters",
    "job variables": "job_variables",
    "concurrency limit": "concurrency_limit",
    "concurrency options": "concurrency_options",
    "work queue": "work_queue_name",
    "work pool": "work_pool_name",
    "enforced schema": "enforce_parameter_schema",
}
"""What `DeploymentUpdate` calls it."""


def _name_of(schedule: Any) -> str:
    """What a schedule is known by: when it fires. An interval's anchor is the moment of deploying, unless it is set."""
    when = _plain(schedule.schedule)
    return json.dumps({name: value for name, value in when.items() if name != "anchor_date"}, sort_keys=True)


def _plain(record: Any, *names: str) -> Any:
    return None if record is None else record.model_dump(mode="json", include=set(names) or None)


def _usable(parameters: State) -> bool:
    config = parameters.get("config")
    try:
        PipelineConfig.model_validate(config if isinstance(config, dict) else {})
    except ValidationError:
        return False
    return True


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
