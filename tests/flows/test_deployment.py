"""`codetune up` and what it deploys: one for the whole module, on a copy of the project, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import LogSort
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, Pending, Running, Scheduled
from prefect.workers.process import ProcessWorker

from flows import deploying, stages
from flows.config import PipelineConfig, build
from flows.server import answers
from tests import records
from tests.flows import postgres
from tests.flows.receiver import Receiver
from tests.flows.test_current_folder import laid_with_traps
from tests.tasks.training.jobs import is_running
from tests.waiting import ended_task_runs, flow_run, free_port, import_path, until

PROJECT = Path(__file__).parents[2]
T = TypeVar("T")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOT = os.environ.get("CODETUNE_SCREENSHOT")
"""Where to put a picture of a run's page, if anywhere."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
if not SCREENSHOT:  # the timeline is WebGL: to draw it without a GPU takes twice what all else takes
    FLAGS.append("--disable-software-rasterizer")
WAIT_SECONDS = 120_000
"""Milliseconds that a page may take."""
SMALL_DEMO: dict[str, Any] = {
    "recipe": "demo",
    "sampling": {"files": 24},
    "tokenization": {"max_length": 64},
    "training": {"max_steps": 2, "warmup_steps": 0, "quantization": "none"},
    "exporting": {"forms": []},
    "retention": None,
    "prompts": {
        "max_chunks": 4,
        "line_prompts": 2,
        "fim_prompts": 2,
        "block_prompts": 0,
        "prompt_tokens": 32,
        "max_new_tokens": 4,
    },
    "evaluation": {"resamples": 2000},
}
LONG_DEMO = {**SMALL_DEMO, "training": {**SMALL_DEMO["training"], "max_steps": 5000}}
"""The same data, trained until somebody ends it."""
WRONG_DEMO = {**SMALL_DEMO, "training": {**SMALL_DEMO["training"], "lora": {"target_modules": ["query_proj"]}}}
STAGES = {*stages.STAGES} - {"quantization", "retention", "retention-tokens", "execution", *stages.SHIPPED}
"""Those that run: what is trained as published is not quantized."""


@dataclass
class Up:
    """A running `codetune up`."""

    process: subprocess.Popen[str]
    address: str
    project: Path
    said: Path
    card: dict[str, str]
    """The environment of whoever computes on the same GPU."""

    def service(self, command: str) -> psutil.Process:
        """Server or worker. One that a test has killed may not be started again yet."""
        parent = psutil.Process(self.process.pid)
        return until(lambda: next((child for child in parent.children() if is_running(child, command)), None))

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings(self.settings), get_client(sync_client=True) as client:
            yield client

    @property
    def key(self) -> str:
        return (self.said.parent / "codetune-key").read_text()

    @property
    def settings(self) -> dict[Any, str]:
        return {PREFECT_API_URL: f"{self.address}/api", PREFECT_API_AUTH_STRING: self.key}

    @property
    def variables(self) -> dict[str, str]:
        """What Prefect's own programs need to be told."""
        return {setting.name: value for setting, value in self.settings.items()}

    def ask(self, path: str, **body: Any) -> Any:
        """What the API says."""
        how = "POST" if body else "GET"
        auth = tuple(self.key.split(":", 1))
        return httpx.request(how, f"{self.address}/api/{path}", json=body or None, auth=auth, verify=False).json()

    def trigger(self, config: dict[str, Any]) -> UUID:
        """Start a run of the deployment `demo`, as its form in the dashboard does."""
        with self.client() as client:
            demo = client.read_deployment_by_name("finetune/demo")
            return client.create_flow_run_from_deployment(demo.id, parameters={"config": config}).id

    def run(self, run: UUID) -> FlowRun:
        with temporary_settings(self.settings):
            return flow_run(self.address, run)

    def ended(self, run: UUID) -> FlowRun:
        """The run, when it has ended."""
        return until(lambda: found if (found := self.run(run)).state and found.state.is_final() else None)

    def engine(self, run: UUID) -> psutil.Process:
        """The process of a run, when the run is at work."""
        until(lambda: self.run(run).state_name == "Running")
        return next(one for one in self.service("worker start").children() if runs(one, run))


def runs(process: psutil.Process, run: UUID) -> bool:
    """Whether a process is that of a run; that of the run before may not be gone yet."""
    with suppress(psutil.Error):
        return process.environ().get("PREFECT__FLOW_RUN_ID") == str(run)
    return False


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: what a run leaves behind must not lie in the original."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("artifacts", "tasks", "flows"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(PROJECT / name, folder)
    (folder / "models").symlink_to(PROJECT / "models")
    return folder


def command(port: int) -> list[str]:
    return [sys.executable, "-P", "-c", "from flows.cli import main; main()", "up", "--port", str(port)]


def clean(**changes: str) -> dict[str, str]:
    """An environment in which no setting of Prefect stands, but for the certificates: all that matters is in the
    project's file."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_") or "_SSL_" in name}
    return ours | changes


@contextmanager
def started(project: Path, home: Path, **environment: str) -> Iterator[Up]:
    port, said = free_port(), home / "said.txt"
    home.mkdir(exist_ok=True)
    card = {"CODETUNE_GPU": "stand-in", "CODETUNE_LOCKS": str(home)}
    path = import_path(project)
    settings = clean(PREFECT_HOME=str(home), PYTHONPATH=path, CODETUNE_STORE="results", PWD="/", **card) | environment
    with said.open("w") as file:
        theirs = laid_with_traps(home / "theirs").parent
        process = subprocess.Popen(command(port), cwd=theirs, env=settings, stdout=file, stderr=file, text=True)
    up = Up(process, f"http://127.0.0.1:{port}", project, said, card)
    try:
        until(lambda: "the end" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield up
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """The webhook that the worker's runs know."""
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def up(project: Path, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("home")
    records.copy_to(home / "prefect.db")
    with started(project, home, CODETUNE_WEBHOOK=receiver.address) as running:
        yield running


def test_the_projects_file_decides_the_servers_settings(up: Up) -> None:
    settings = up.ask("admin/settings")
    assert {up.service(one).environ()["DO_NOT_TRACK"] for one in ("server start", "worker start")} == {"1"}
    server = settings["server"]
    assert server["concurrency"]["lease_storage"] == "prefect.server.concurrency.lease_storage.filesystem"
    assert (server["ui"]["v2_enabled"], server["analytics_enabled"]) == (False, False)
    assert settings["flows"]["heartbeat_frequency"] == 30
    assert (settings["results"]["persist_by_default"], settings["results"]["default_serializer"]) == (False, "json")
    assert httpx.get(f"{up.address}/ui-settings").json()["api_url"] == f"{up.address}/api"


def test_a_second_one_on_the_same_port_says_what_to_do(up: Up, tmp_path: Path) -> None:
    settings = clean(PREFECT_HOME=str(tmp_path))
    port = int(up.address.rpartition(":")[2])
    done = subprocess.run(command(port), cwd=up.project, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--port: " in done.stderr and f":{port} " in done.stderr and f"PORT={port + 100}" in done.stderr


def test_a_second_worker_of_the_same_name_is_refused(up: Up) -> None:
    """It would say of the other's runs that nobody has them."""
    with another_worker(up) as (worker, said):
        assert worker.wait(60) == 2
    assert "error: --name: " in said.read_text()


def test_everything_is_deployed(up: Up) -> None:
    with up.client() as client:
        found = {deployment.name: deployment for deployment in client.read_deployments()}
        pool = client.read_work_pool("gpu")
    assert {"demo", "codellama-7b-t4", "evaluate"} <= found.keys()
    for deployment in found.values():
        (place,) = (step["prefect.deployments.steps.set_working_directory"] for step in deployment.pull_steps or ())
        assert (deployment.work_pool_name, place) == ("gpu", {"directory": str(up.project)})
    assert pool.concurrency_limit == 1
    for name in ("demo", "codellama-7b-t4"):  # all of it: the dashboard's form submits every field that it shows
        assert found[name].parameters == {"config": build(name).model_dump(mode="json")}
    (weekly,) = found["codellama-7b-t4"].schedules
    assert (weekly.schedule.timezone, weekly.active) == ("Europe/Berlin", False)  # type: ignore[union-attr]


@contextmanager
def switched(up: Up, name: str, *, on: bool) -> Iterator[None]:
    """A schedule that somebody switches in the dashboard; it must still be so at the end."""

    def flip(active: bool) -> None:
        (weekly,) = client.read_deployment(deployment).schedules
        assert weekly.active != active
        client.update_deployment_schedule(deployment, weekly.id, active=active)

    with up.client() as client:
        deployment = client.read_deployment_by_name(f"finetune/{name}").id
        flip(on)
        yield
        flip(not on)


def test_the_commands_of_the_compose_file_do_their_work(up: Up, tmp_path: Path) -> None:
    services, port = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"], str(free_port())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = clean(**up.variables, PREFECT_HOME=str(tmp_path), PATH=path)
    settings |= {"PYTHONPATH": import_path(up.project), "PREFECT_WORKER_WEBSERVER_PORT": port}

    def is_healthy(service: str) -> bool:
        _, *probe = services[service]["healthcheck"]["test"]
        probe = [word.replace("8080", port).replace("4200", up.address.rpartition(":")[2]) for word in probe]
        return subprocess.run(probe, env=settings, stderr=subprocess.DEVNULL).returncode == 0

    with switched(up, "codellama-7b-t4", on=True):
        subprocess.run(shlex.split(services["deployments"]["command"]), cwd=up.project, env=settings, check=True)
    assert is_healthy("server") and not is_healthy("worker")
    worker = subprocess.Popen(shlex.split(services["worker"]["command"]), cwd=up.project, env=settings)
    try:
        until(lambda: is_healthy("worker"))
    finally:
        worker.terminate()
        worker.wait(60)


@pytest.fixture(scope="module")
def scheduler() -> None:
    """A scheduler that works: Prefect 3.8.8 inserts no runs with SQLAlchemy 2.1, which pyproject.toml rules out."""
    if version("sqlalchemy") >= "2.1":
        pytest.skip("the installed SQLAlchemy is newer than requirements.txt: install again")


@pytest.fixture(scope="module")
def scheduled(up: Up, scheduler: None) -> list[FlowRun]:
    """The first two runs that a schedule of every few seconds started, both ended."""
    from prefect.client.schemas.schedules import IntervalSchedule

    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        small = PipelineConfig.model_validate(SMALL_DEMO).model_dump(mode="json")
        queue: dict[str, Any] = {"work_pool_name": "gpu", "work_queue_name": "scheduled"}
        client.update_deployment(demo.id, DeploymentUpdate(parameters={"config": small}, **queue))
        client.create_deployment_schedules(demo.id, [(IntervalSchedule(interval=timedelta(seconds=5)), True)])

        # Asked for by state: dozens are scheduled ahead, each with all its parameters.
        final = FlowRunFilterStateType(any_=list(TERMINAL_STATES))

        def ended() -> list[FlowRun] | None:
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=final)))
            return sorted(runs, key=lambda run: str(run.start_time)) if len(runs) >= 2 else None

        runs = until(ended)
        # The server may be about to schedule dozens more, whatever is said of the schedule: in a queue of their own,
        # which is paused, none of them stands in line before what other tests start.
        client.update_work_queue(client.read_work_queue_by_name("scheduled", work_pool_name="gpu").id, is_paused=True)
        client.update_deployment(demo.id, DeploymentUpdate(paused=True, **queue | {"work_queue_name": "default"}))
    return runs[:2]


def states_of_stages(up: Up, run: UUID) -> dict[str, str | None]:
    with up.client() as client:
        return {stage.name: stage.state_name for stage in ended_task_runs(client, run, STAGES)}


def test_a_schedule_fires_and_its_run_completes(up: Up, scheduled: list[FlowRun]) -> None:
    first = scheduled[0]
    assert first.auto_scheduled and first.state is not None and first.state.is_completed(), up.said.read_text()
    manifests = list((up.project / "results").glob("*/*/manifest.json"))
    # `answers` are the parts of what generation makes.
    assert sorted({path.parts[-3] for path in manifests} - {"answers"}) == sorted(STAGES)


def test_nothing_was_imported_from_where_it_was_started(up: Up, scheduled: list[FlowRun]) -> None:
    assert not (up.said.parent / "theirs" / "marks").exists()


def test_a_run_that_names_its_command_is_refused_by_the_worker_too(up: Up, tmp_path: Path) -> None:
    """Should the pool take such a run, as one that was made before did."""
    with up.client() as client:
        demo, closed = client.read_deployment_by_name("finetune/demo"), client.read_work_pool("gpu").base_job_template
        opened = ProcessWorker.get_default_base_job_template()
        client.update_work_pool("gpu", WorkPoolUpdate(base_job_template=opened))
        try:
            variables = [
                {"command": f"touch {tmp_path / 'mark'}"},
                {"env": {"PYTHONSTARTUP": "x"}},
                {"working_dir": "/"},
            ]
            runs = [client.create_flow_run_from_deployment(demo.id, job_variables=one).id for one in variables]
            states = [up.ended(run).state for run in runs]
        finally:
            client.update_work_pool("gpu", WorkPoolUpdate(base_job_template=closed))
    for state in states:
        assert state is not None and state.is_crashed() and "job_variables" in (state.message or ""), state
    assert not (tmp_path / "mark").exists()


def test_prefects_own_command_finds_the_server_by_the_profile(up: Up) -> None:
    command = [
        Path(sys.executable).with_name("prefect"),
        "--profile",
        "codetune",
        "deployment",
        "inspect",
        "finetune/demo",
    ]
    done = subprocess.run(command, env=clean(PREFECT_HOME=str(up.said.parent)), capture_output=True, text=True)
    assert done.returncode == 0 and "flows.finetune.finetune" in done.stdout, done.stderr


def test_the_next_one_finds_everything_in_the_store(up: Up, scheduled: list[FlowRun]) -> None:
    assert states_of_stages(up, scheduled[1].id) == dict.fromkeys(STAGES, "Cached")
    assert scheduled[1].total_run_time < scheduled[0].total_run_time / 2


# --- watching -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failed(up: Up, scheduled: list[FlowRun]) -> FlowRun:
    """A run that asks for layers which the model does not have."""
    return up.ended(up.trigger(WRONG_DEMO))


def artifacts_of(up: Up, run: UUID) -> dict[str, str]:
    """The addresses of the pages of a run's artifacts, by key."""
    found = up.ask("artifacts/filter", flow_runs={"id": {"any_": [str(run)]}})
    return {one["key"]: f"{up.address}/artifacts/artifact/{one['id']}" for one in found if one["key"]}


@pytest.fixture
def page(tab: Any) -> Iterator[Any]:
    """A page, left when the test has seen it: the dashboard draws without end."""
    yield tab
    tab.goto("about:blank")


@pytest.fixture(scope="module")
def tab(up: Up) -> Iterator[Any]:
    """A browser's only page, which must ask nobody but this machine. It was opened by the address that was printed."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    hosts: set[str | None] = set()
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(WAIT_SECONDS)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        printed = re.search(r"http\S+#key=\S+", up.said.read_text())
        assert printed
        page.goto(printed[0])
        page.wait_for_load_state()
        yield page
        browser.close()
    assert hosts - {None} == {"127.0.0.1"}


def open_run(page: Any, up: Up, run: UUID, tab: str) -> None:
    page.goto(f"{up.address}/runs/flow-run/{run}")
    page.get_by_text(tab, exact=True).first.click()


def test_the_page_of_a_run_shows_its_artifacts(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    open_run(page, up, scheduled[0].id, "Artifacts")
    for what in ("run-overview", "run-report", "training: 2 / 2 steps", "preflight-plan"):
        page.get_by_text(what).first.wait_for()
    if SCREENSHOT:
        page.wait_for_timeout(3000)  # the timeline is drawn after the page
        page.screenshot(path=Path(SCREENSHOT))


def test_stages_that_were_reused_are_marked(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    open_run(page, up, scheduled[1].id, "Task Runs")
    marked = "[...document.querySelectorAll('.state-list-item')].filter(one => one.innerText.includes('Cached'))"
    page.wait_for_function(f"{marked}.length == {len(STAGES)}")


def test_tables_are_tables(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    page.goto(artifacts_of(up, scheduled[0].id)["run-overview"])
    page.locator("table td", has_text="training").first.wait_for()
    assert page.locator("table tr").count() > 7


def test_the_report_has_its_pictures(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    """Also that of a run which was reused from end to end."""
    page.goto(artifacts_of(up, scheduled[1].id)["run-report"])
    link = page.get_by_role("link", name="The report, with its pictures").first  # which opens another tab
    page.goto(f"{up.address}{link.get_attribute('href')}")
    page.get_by_text("The plan, and what it came to").first.wait_for()
    page.wait_for_function("[...document.images].filter(one => one.naturalWidth > 0).length > 2")


def test_pictures_are_decoded(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    page.goto(artifacts_of(up, scheduled[0].id)["training-training-figure-1"])
    page.wait_for_function("[...document.images].some(one => one.src.startsWith('data:') && one.naturalWidth > 0)")


def test_a_failed_run_says_what_to_do(page: Any, up: Up, failed: FlowRun) -> None:
    page.goto(artifacts_of(up, failed.id)["run-failure"])
    page.get_by_text("What to do").first.wait_for()
    page.get_by_text("choose among").first.wait_for()


def test_the_terminal_reads_sentences_and_nothing_is_kept_beside_the_store(up: Up, failed: FlowRun) -> None:
    said = up.said.read_text()
    assert "choose among" in said and "Traceback" not in said and "unexpected exception" not in said
    assert failed.state and "choose among" in str(failed.state.message) and failed.state.data is None
    assert not (up.said.parent / "storage").exists()


def begun(page: Any, press: Callable[[], None]) -> UUID:
    """The run that pressing a button begins. A person presses again when the server is busy, as SQLite's may be."""
    while True:
        with page.expect_response("**/create_flow_run") as answer:
            press()
        if answer.value.status != 503:
            break
    assert answer.value.status == 201, answer.value.text()
    return UUID(answer.value.json()["id"])


def test_the_forms_of_the_dashboard_start_what_the_deployment_says(page: Any, up: Up, scheduled: list[FlowRun]) -> None:
    """Quick run, which asks nothing, and Custom run, whose form submits all of its fields."""
    with up.client() as client:
        deployment = f"{up.address}/deployments/deployment/{client.read_deployment_by_name('finetune/demo').id}"
        page.goto(f"{deployment}/run")
        made = [begun(page, lambda: page.get_by_role("button", name="Submit", exact=True).click())]
        page.goto(deployment)

        def quick() -> None:
            page.get_by_role("button", name="Run", exact=True).click()
            page.get_by_text("Quick run").first.click()

        made.append(begun(page, quick))
    assert [up.ended(run).state_name for run in made] == ["Completed", "Completed"]
    assert [states_of_stages(up, run) for run in made] == [dict.fromkeys(STAGES, "Cached")] * 2


# --- the webhook ----------------------------------------------------------------------------------------------


def test_the_webhook_hears_of_success_and_failure(
    up: Up, scheduled: list[FlowRun], failed: FlowRun, receiver: Receiver
) -> None:
    ((good,), (bad,)) = (receiver.heard(run.id) for run in (scheduled[0], failed))
    assert (good["state"], good["recipe"], bad["state"]) == ("completed", "demo", "failed")
    assert bad["error"]["field"] == "training.lora.target_modules" and "choose among" in bad["error"]["remedy"]


def test_it_hears_of_a_run_that_is_killed_and_of_one_that_is_cancelled(
    up: Up, scheduled: list[FlowRun], receiver: Receiver
) -> None:
    killed, cancelled = up.trigger(LONG_DEMO), up.trigger(LONG_DEMO)
    up.engine(killed).kill()
    until(lambda: receiver.heard(killed))
    up.engine(cancelled)
    with up.client() as client:
        client.set_flow_run_state(cancelled, Cancelling())
    until(lambda: receiver.heard(cancelled))
    assert [up.ended(run).state_name for run in (killed, cancelled)] == ["Crashed", "Cancelled"]
    said = [(one["state"], one["recipe"]) for run in (killed, cancelled) for one in receiver.heard(run)]
    assert said == [("crashed", "demo"), ("cancelled", "demo")]


def test_it_hears_of_a_run_that_is_killed_together_with_its_worker(up: Up, receiver: Receiver) -> None:
    run, worker = up.trigger(LONG_DEMO), up.service("worker start")
    process = up.engine(run)
    worker.suspend()  # or it tells
    process.kill()
    worker.kill()
    assert [said["state"] for said in until(lambda: receiver.heard(run))] == ["crashed"]
    assert up.run(run).state_name == "Crashed"


# --- kills ----------------------------------------------------------------------------------------------------


def test_runs_of_which_nothing_is_heard_give_up_their_places(up: Up) -> None:
    """As when a machine is gone, with the worker and all: one that was never begun, and one that was at work."""
    soon = timedelta(seconds=10)  # the least that Prefect takes
    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        deploying.watch_over_runs(client, silent=soon, beginning=soon)
        try:
            lost = [
                client.create_flow_run_from_deployment(demo.id, state=state).id
                for state in (Pending(name="Submitting"), Running())
            ]
            states = [up.ended(run).state for run in lost]
        finally:
            deploying.watch_over_runs(client)
    for state in states:
        assert state is not None and state.is_crashed(), state
        assert "Nothing was heard" in state.message and "press Retry" in state.message


def test_a_server_that_is_killed_is_started_again_and_loses_no_run(up: Up) -> None:
    """One run that waits for the worker, and one that is being prepared."""
    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        waiting, begun = (
            client.create_flow_run_from_deployment(demo.id, parameters={"config": SMALL_DEMO}, state=state)
            for state in (Scheduled(), Pending())
        )
        up.service("worker start").suspend()
        up.process.send_signal(signal.SIGSTOP)  # or it starts the server again at once
        up.service("server start").kill()
    run = clean(
        PREFECT__FLOW_RUN_ID=str(begun.id),
        **up.variables,
        PREFECT_HOME=str(up.said.parent),
        PYTHONPATH=import_path(up.project),
        CODETUNE_STORE="results",
    )
    prepared = subprocess.Popen(
        [sys.executable, "-m", "flows.deployed"], cwd=up.project, env=run, stderr=subprocess.PIPE, text=True
    )
    assert prepared.stderr is not None
    try:
        until(lambda: "went away before the run began" in prepared.stderr.readline())  # type: ignore[union-attr]
    finally:
        up.process.send_signal(signal.SIGCONT)
    until(lambda: "starting it again" in up.said.read_text())
    until(lambda: answers(up.address))
    up.service("worker start").resume()
    said = prepared.communicate(timeout=200)[1]
    assert prepared.returncode == 0, said

    def ended() -> list[FlowRun] | None:
        with up.client() as client:
            runs = [client.read_flow_run(run.id) for run in (waiting, begun)]
        return runs if all(run.state and run.state.is_final() for run in runs) else None

    assert [run.state_name for run in until(ended)] == ["Completed", "Completed"], up.said.read_text()


def everything_below(supervisor: subprocess.Popen[Any]) -> list[psutil.Process]:
    return [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]


def trains(up: Up, supervisor: subprocess.Popen[Any]) -> bool:
    """Whether optimizer steps are being made below a process: the event file bears the training's number."""
    with suppress(psutil.NoSuchProcess):  # some end while they are looked at
        pids = [one.pid for one in everything_below(supervisor) if is_running(one, "tasks.training.worker")]
        events = up.project / "results" / ".work" / "training"
        return any([*events.glob(f"*/result/tensorboard/events*.{pid}.*")] for pid in pids)
    return False


@pytest.fixture(scope="module")
def long_run(up: Up, scheduled: list[FlowRun]) -> UUID:
    """A run of the worker's that trains until somebody ends it."""
    run = up.trigger(LONG_DEMO)
    until(lambda: "training-progress" in artifacts_of(up, run))
    return run


def test_training_is_watched_live(page: Any, up: Up, long_run: UUID) -> None:
    open_run(page, up, long_run, "Artifacts")
    bar = page.get_by_text(re.compile(r"training: .* steps · loss .* tokens/s .* left .* memory"))
    bar.first.wait_for()
    said = bar.first.inner_text()
    page.wait_for_function("said => !document.body.innerText.includes(said)", arg=said)  # it moves without a click


@contextmanager
def ended_with_the_test(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_a_run_by_hand_waits_for_the_card_until_the_workers_run_is_gone(
    up: Up, long_run: UUID, receiver: Receiver
) -> None:
    """That one goes with its worker, and says so."""
    recipe = up.project / "by-hand.yaml"
    recipe.write_text(json.dumps(SMALL_DEMO))  # which is YAML
    run = ["run", str(recipe), "--refresh", "training", "--store", "results"]
    environment = {**clean(**up.variables, PYTHONPATH=import_path(up.project)), **up.card}
    by_hand = subprocess.Popen(
        [sys.executable, "-c", "from flows.cli import main; main()", *run], cwd=up.project, env=environment
    )
    with ended_with_the_test(by_hand), up.client() as client:
        until(lambda: "; waiting for it" in str(client.read_logs(limit=200, sort=LogSort.TIMESTAMP_DESC)))
        up.service("worker start").kill()
        crashed = until(lambda: (found := client.read_flow_run(long_run)).state_name == "Crashed" and found)
        assert crashed.state is not None and "The worker of this run is gone" in (crashed.state.message or "")
        assert until(lambda: by_hand.poll() is not None) and by_hand.returncode == 0
    assert [said["state"] for said in until(lambda: receiver.heard(long_run))] == ["crashed"]


def retry(up: Up, run: UUID) -> None:
    """As Retry in the dashboard does."""
    with up.client() as client:
        client.set_flow_run_state(run, AwaitingRetry(), force=True)


def test_a_worker_of_another_machine_that_is_told_to_stop_ends_its_run_in_order(up: Up, long_run: UUID) -> None:
    """The run says so itself; nobody has to wait for its heartbeat to be missed. Training has written a checkpoint."""
    up.service("worker start").suspend()
    checkpoints = up.project / "results" / ".work" / "training"
    before = {*checkpoints.glob("*/checkpoints/step-*/checkpoint.json")}
    try:
        with another_worker(up, "--name", "other") as (worker, said):
            retry(up, long_run)
            until(lambda: trains(up, worker) or worker.poll() is not None)
            everything = everything_below(worker)
            worker.terminate()
            assert worker.wait(120) == 0, said.read_text()
    finally:
        up.service("worker start").resume()
    state = up.run(long_run).state
    assert state is not None and state.is_crashed() and "told to stop (SIGTERM)" in (state.message or ""), state
    assert not [process for process in everything[1:] if process.is_running()]
    assert {*checkpoints.glob("*/checkpoints/step-*/checkpoint.json")} - before


@contextmanager
def another_worker(up: Up, *options: str) -> Iterator[tuple[subprocess.Popen[Any], Path]]:
    """`codetune worker`, and what it says."""
    said = up.said.with_name("worker.txt")
    home = {"PREFECT_API_URL": f"{up.address}/api", "PREFECT_HOME": str(up.said.parent), "CODETUNE_STORE": "results"}
    environment = {**clean(**home, PYTHONPATH=import_path(up.project)), **up.card}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "worker", *options]
    with said.open("w") as file:
        worker = subprocess.Popen(command, cwd=up.project, env=environment, stdout=file, stderr=file)
    with ended_with_the_test(worker):
        yield worker, said


def test_ctrl_c_ends_everything_at_work(up: Up, long_run: UUID) -> None:
    """The last test of the module that uses it. Training has written a checkpoint."""
    retry(up, long_run)
    until(lambda: trains(up, up.process))
    everything = everything_below(up.process)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(200) == 0, up.said.read_text()
    assert not [process for process in everything[1:] if process.is_running()]
    assert list((up.project / "results").glob(".work/training/*/checkpoints/step-*/checkpoint.json"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up.address}/api/health")


@pytest.mark.slow
@pytest.mark.skipif("not config.getoption('-m')", reason="slow: run it with -m slow; the chaos suite does it as well")
def test_everything_ends_with_a_kill_of_the_parent(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "home") as up:
        everything = everything_below(up.process)
        assert len(everything) == 3
        up.process.send_signal(signal.SIGKILL)
        up.process.wait()
        _, alive = psutil.wait_procs(everything, timeout=60)
        assert not alive, [process.cmdline() for process in alive]


# --- another one, on PostgreSQL -------------------------------------------------------------------------------


def test_on_postgresql_all_is_the_same_and_ctrl_c_gives_up_every_connection(
    project: Path, database: postgres.Postgres, tmp_path: Path
) -> None:
    with started(project, tmp_path / "home", PREFECT_API_DATABASE_CONNECTION_URL=database.url) as up:
        run = up.ended(up.trigger(SMALL_DEMO))
        assert run.state_name == "Completed", up.said.read_text()
        assert database.ask(f"select state_type from flow_run where id = '{run.id}'") == ["COMPLETED"]
        everything = everything_below(up.process)
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(60) == 0, up.said.read_text()
        assert not [process for process in everything[1:] if process.is_running()]
    said = up.said.read_text()
    assert f"postgresql at 127.0.0.1:{database.port}" in said and postgres.PASSWORD not in said
    assert database.close() == 0  # which waits for the last connection
