"""A stage's progress in the dashboard."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.runtime import flow_run

from artifacts.progress import Progress
from tasks.running import dashboard


def test_the_last_state_is_shown(prefect_server: None) -> None:
    @task
    def count() -> None:
        with dashboard.progress_of("counting") as listener:
            progress = Progress(listener)
            progress.begin("counting", 3, "things")
            for _ in range(3):
                progress.advance()

    @flow
    def counting() -> None:
        count()

    counting()
    with get_client(sync_client=True) as client:
        named = ArtifactFilter(key=ArtifactFilterKey(any_=["counting-progress"]))
        (shown,) = client.read_artifacts(artifact_filter=named)
    assert (shown.type, shown.data, shown.description) == ("progress", 100, "counting: 3 / 3 things")
    assert shown.task_run_id is not None


def test_a_report_that_is_unchanged_is_not_kept_again(prefect_server: Path) -> None:
    text = f"# Report {uuid4()}\n\n" + "x" * 300_000

    @flow
    def reporting(text: str) -> str:
        dashboard.publish_report(text)
        return str(flow_run.id)

    runs = [reporting(text), reporting(text), reporting(text + "."), reporting(text)]
    with closing(sqlite3.connect(prefect_server)) as database:
        told = database.execute("SELECT key, flow_run_id, length(data), data FROM artifact ORDER BY created").fetchall()
    told = [row for row in told if row[1] in runs]
    large = [row for row in told if row[2] > 1000]
    assert [row[1] for row in large] == [runs[0], runs[2]]
    links = [row[3] for row in told if row[0] == "run-report"]
    assert len(links) == 4 and links[1] == links[3] != links[2] and "earlier run" in links[1]


def test_a_server_that_does_not_answer_holds_up_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done, before_the_answer = threading.Event(), []

    def answer_late(*_progress: object, **_named: object) -> None:
        before_the_answer.append(done.wait(10))

    monkeypatch.setattr(dashboard, "create_progress_artifact", answer_late)
    with dashboard.progress_of("counting") as listener:
        progress = Progress(listener)
        progress.begin("counting", 3, "things")
        for _ in range(3):
            progress.advance()
        done.set()
    assert before_the_answer and all(before_the_answer)


def test_what_is_left_to_be_told_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    left, never = threading.Event(), threading.Event()

    def answer_never(*_progress: object, **_named: object) -> None:
        left.wait(10)
        never.set()

    monkeypatch.setattr(dashboard, "create_progress_artifact", answer_never)
    monkeypatch.setattr(dashboard, "WAIT_SECONDS", 0.01, raising=False)
    with dashboard.progress_of("counting") as listener:
        Progress(listener).begin("counting")
    assert not never.is_set()
    left.set()
