from __future__ import annotations

import logging
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from artifacts.errors import InputError
from artifacts.schema import PreflightReport, RunReport
from artifacts.store import MANIFEST, Store
from tests.chaos.damage import damage

KEY = "0" * 64


def publish(store: Store, text: str = "hello", key: str = KEY) -> RunReport:
    workdir = store.workdir("reporting", key)
    (workdir / "report.html").write_text(text)
    (workdir / "parts").mkdir()
    (workdir / "parts" / "one.txt").write_text("1")
    return store.publish("reporting", key, RunReport(verdict="fine"), workdir)


def test_what_is_published_is_found_with_its_files(store: Store) -> None:
    published = publish(store)
    found = store.find("reporting", KEY, RunReport)
    assert found == published
    assert found is not None and (found.path / "parts" / "one.txt").read_text() == "1"


def test_equal_contents_have_equal_fingerprints(store: Store) -> None:
    first, again, other = publish(store), publish(store, key="1" * 64), publish(store, "bye", key="2" * 64)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_measurements_are_no_part_of_the_fingerprint(store: Store, preflight_report: PreflightReport) -> None:
    prints = set()
    for number in ("1", "2"):
        workdir = store.workdir("preflight", number * 64)
        (workdir / "plan.json").write_text("{}")
        (workdir / "probe.json").write_text(number)
        prints.add(store.publish("preflight", number * 64, preflight_report, workdir).fingerprint)
    assert len(prints) == 1


@pytest.fixture
def preflight_report() -> PreflightReport:
    from artifacts.schema import Plan, Prediction

    plan = Plan(device="cpu", precision="fp32", micro_batch=4, accumulation=1, gradient_checkpointing=False)
    prediction = Prediction(peak_gib=1, tokens_per_second=None, seconds=None, disk_gib=1)
    return PreflightReport(machine="CPU", plan=plan, prediction=prediction, checks=())


def test_no_bit_of_an_artifact_may_change(store: Store) -> None:
    for number in range(60):
        published = publish(store)
        files = sorted(path for path in published.path.rglob("*") if path.is_file())
        damage(files[number % len(files)], "flip", random.Random(number))
        assert store.find("reporting", KEY, RunReport) is None, f"{files[number % len(files)]}, seed {number}"


@pytest.mark.parametrize("name", ["report.html", "parts/one.txt", MANIFEST])
@pytest.mark.parametrize("harm", ["delete", "truncate", "alter", "FIFO", "device"])
def test_a_damaged_artifact_is_never_served(
    store: Store, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = publish(store).path / name
    data = path.read_bytes()
    if harm == "delete":
        path.unlink()
    elif harm in ("FIFO", "device"):
        path.unlink()
        os.mkfifo(path) if harm == "FIFO" else path.symlink_to("/dev/zero")
    else:
        path.write_bytes(data[:-1] if harm == "truncate" else bytes([data[0] ^ 1]) + data[1:])
    with caplog.at_level(logging.WARNING):
        assert store.find("reporting", KEY, RunReport) is None
    assert "will be built again" in caplog.text
    assert not path.parent.exists() or name.startswith("parts")


def test_a_half_written_artifact_is_invisible(store: Store) -> None:
    (store.workdir("reporting", KEY) / "report.html").write_text("half")
    assert store.find("reporting", KEY, RunReport) is None


def test_a_work_directory_is_emptied_unless_kept(store: Store) -> None:
    (store.workdir("training", KEY) / "checkpoint").write_text("1")
    assert (store.workdir("training", KEY, keep=True) / "checkpoint").exists()
    assert not (store.workdir("training", KEY) / "checkpoint").exists()


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="CODETUNE_STORE"):
        Store(tmp_path / "file" / "store")


def hold_lock(root: Path, held: multiprocessing.synchronize.Event) -> None:
    with Store(root).lock("training", KEY):
        held.set()
        time.sleep(60)


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold_lock, args=(tmp_path, held))
    holder.start()
    assert held.wait(30)
    os.kill(holder.pid or 0, 9)
    with Store(tmp_path).lock("training", KEY):
        pass
    holder.join()


def test_what_a_kill_left_of_a_finished_artifact_is_swept_but_not_from_under_a_builder(store: Store) -> None:
    left = store.workdir("reporting", KEY) / "checkpoint"
    left.write_text("1")
    with store.lock("reporting", KEY):
        store.sweep("reporting", KEY)
        assert left.exists()
    store.sweep("reporting", KEY)
    assert not left.parent.exists()
