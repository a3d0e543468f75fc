"""What people did in the dashboard, after deploying again: on a real server, with files that change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import deploying, keeping
from flows.config import build
from flows.server import Server
from tests.servers import PrefectServer, wait_for

PROJECT = Path(__file__).parents[2]
GONE = "gone"


@pytest.mark.parametrize(
    ("deployed", "filed", "served", "wanted", "disputed"),
    [
        (1, 1, 2, 2, 0),  # people's
        (1, 2, 1, 2, 0),  # the file's
        (1, 2, 2, 2, 0),
        (1, 2, 3, 3, 1),  # both, differently
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 3}, 0),
        ({"a": 1}, {"a": 1, "n": 1}, {"a": 2}, {"a": 2, "n": 1}, 0),  # a setting that is new
        ({"a": 1, "o": 1}, {"a": 1}, {"a": 2, "o": 1}, {"a": 2}, 0),  # one that is gone
        ({"a": 1, "o": 1}, {"a": 1}, {"a": 1, "o": 2}, {"a": 1, "o": 2}, 1),  # gone, and changed by people
        ({"t": True}, {"t": True, "f": True}, {"p": True}, {"f": True, "p": True}, 0),  # tags
        (
            {"x": {"kind": "a", "p": 1}},
            {"x": {"kind": "b"}},
            {"x": {"kind": "a", "p": 2}},
            {"x": {"kind": "a", "p": 2}},
            1,
        ),
        ({"l": [1]}, {"l": [1, 2]}, {"l": [1]}, {"l": [1, 2]}, 0),
    ],
)
def test_three_states_make_one(deployed: Any, filed: Any, served: Any, wanted: Any, disputed: int) -> None:
    conflicts: list[str] = []
    assert keeping.merge(deployed, filed, served, conflicts) == wanted
    assert len(conflicts) == disputed


slow = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    server = PrefectServer()
    wait_for(server.address, server.database)
    yield server
    server.stop()


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: f"{server.address}/api"}), get_client(sync_client=True) as client:
        yield client
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        for artifact in client.read_artifacts():
            client.delete_artifact(artifact.id)


class Files:
    """A `prefect.yaml` that changes."""

    def __init__(self, folder: Path, server: PrefectServer) -> None:
        self._file, self._server = folder / "prefect.yaml", Server(server.address)
        self.said = yaml.safe_load((PROJECT / "prefect.yaml").read_text())

    def __getitem__(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.said["deployments"] if one["name"] == name)
        return found

    def deploy(self, **options: Any) -> list[str]:
        self._file.write_text(yaml.safe_dump(self.said))
        return deploying.register(self._server, **options)


@pytest.fixture
def files(tmp_path: Path, server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(deploying, "PROJECT", tmp_path)
    return Files(tmp_path, server)


def demo(client: SyncPrefectClient, name: str = "demo") -> Any:
    return client.read_deployment_by_name(f"finetune/{name}")


def state(client: SyncPrefectClient, name: str = "demo") -> keeping.State:
    return keeping.state_of(demo(client, name))


def set_steps(client: SyncPrefectClient, steps: int) -> None:
    config = demo(client).parameters["config"]
    config = {**config, "training": {**config["training"], "max_steps": steps}}
    client.update_deployment(demo(client).id, DeploymentUpdate(parameters={"config": config}))


@slow
def test_all_that_people_change_stays(client: SyncPrefectClient, files: Files) -> None:
    assert files.deploy() == []
    weekly = demo(client, "codellama-7b-t4")
    client.delete_deployment_schedule(weekly.id, weekly.schedules[0].id)
    changes: dict[str, Any] = {"description": "mine", "tags": ["nightly"], "concurrency_limit": 3, "paused": True}
    client.update_deployment(demo(client).id, DeploymentUpdate(**changes))
    client.update_deployment(demo(client).id, DeploymentUpdate(work_pool_name="gpu", work_queue_name="slow"))
    set_steps(client, 77)
    hourly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 * * * *"), active=True, max_scheduled_runs=2)
    client.create_deployment_schedules(demo(client).id, [hourly])
    before = state(client), state(client, "codellama-7b-t4")
    assert files.deploy() == [] and files.deploy() == []
    assert (state(client), state(client, "codellama-7b-t4")) == before
    assert (before[0]["concurrency limit"], before[0]["tags"], before[1]["schedules"]) == (3, {"nightly": True}, {})


@slow
def test_what_the_files_change_arrives_beside_what_people_changed(client: SyncPrefectClient, files: Files) -> None:
    files.deploy()
    set_steps(client, 77)
    files["demo"]["parameters"] = {"config": {"recipe": "demo", "sampling": {"files": 99}}}
    files["demo"]["tags"] = ["new"]
    files["codellama-7b-t4"]["schedules"] = [{"cron": "0 4 * * *", "timezone": "UTC", "active": False}]
    assert files.deploy() == []
    config = demo(client).parameters["config"]
    assert (config["sampling"]["files"], config["training"]["max_steps"]) == (99, 77)
    assert demo(client).tags == ["new"]
    assert [one.schedule.cron for one in demo(client, "codellama-7b-t4").schedules] == ["0 4 * * *"]


@slow
def test_where_both_changed_it_is_said_and_people_win_until_they_reset(client: SyncPrefectClient, files: Files) -> None:
    files.deploy()
    client.update_deployment(demo(client).id, DeploymentUpdate(description="mine"))
    files["demo"]["description"] = "theirs"
    said = files.deploy()
    assert "demo, description: " in said[0] and "mine" in said[0] and "theirs" in said[0] and "--reset" in said[-1]
    assert demo(client).description == "mine" and files.deploy() == []
    files.deploy(reset=True)
    assert demo(client).description == "theirs"


@slow
def test_a_deployment_that_was_deleted_stays_away_until_reset(client: SyncPrefectClient, files: Files) -> None:
    files.deploy()
    client.delete_deployment(demo(client).id)
    for _ in range(2):
        assert files.deploy()[0].startswith("demo was deleted")
    assert {one.name for one in client.read_deployments()} == {"codellama-7b-t4", "evaluate"}
    files.deploy(reset=True)
    assert demo(client).parameters == {"config": build("demo").model_dump(mode="json")}


@slow
def test_deploying_that_is_cut_short_loses_nothing(
    client: SyncPrefectClient, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.deploy()
    set_steps(client, 77)

    def cut(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keeping, "bring_about", cut)
        files.deploy()
    assert demo(client).parameters["config"] == {"recipe": "demo"}  # what Prefect's own command leaves
    files.deploy()
    assert demo(client).parameters["config"]["training"]["max_steps"] == 77


@slow
def test_parameters_that_this_version_does_not_take_give_way(client: SyncPrefectClient, files: Files) -> None:
    files.deploy()
    config = {**demo(client).parameters["config"], "removed": {"setting": 1}}
    client.update_deployment(demo(client).id, DeploymentUpdate(enforce_parameter_schema=False))
    client.update_deployment(demo(client).id, DeploymentUpdate(parameters={"config": config}))
    assert any("does not take" in sentence for sentence in files.deploy())
    assert demo(client).parameters == {"config": build("demo").model_dump(mode="json")}


@slow
def test_a_watch_that_somebody_switched_off_stays_off(client: SyncPrefectClient, files: Files) -> None:
    files.deploy()
    (watch,) = client.read_automations_by_name(deploying.SILENT)
    client.request("PATCH", f"/automations/{watch.id}", json={"enabled": False})
    files.deploy()
    assert [one.enabled for one in client.read_automations_by_name(deploying.SILENT)] == [False]
    assert [one.enabled for one in client.read_automations_by_name(deploying.NOT_BEGUN)] == [True]
