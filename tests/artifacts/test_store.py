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
from artifacts.store import MANIFEST, Damaged, Store
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

    plan = Plan(
        device="cpu",
        precision="fp32",
        micro_batch=4,
        accumulation=1,
        gradient_checkpointing=False,
        backend="transformers",
    )
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
    assert any(record.levelno == logging.WARNING and KEY[:12] in record.getMessage() for record in caplog.records)
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


def test_manifests_come_newest_first_without_the_damaged(store: Store) -> None:
    for number, finished in enumerate(("2026-01-02", "2026-01-03", "2026-01-01", "2026-01-04")):
        key = str(number) * 64
        workdir = store.workdir("reporting", key)
        (workdir / "report.html").write_text("x")
        handle = store.publish("reporting", key, RunReport(verdict="fine"), workdir, {"finished": finished})
    (handle.path / MANIFEST).write_text("{}")
    assert [manifest.key[0] for manifest in store.manifests("reporting")] == ["1", "0", "2"]
    assert store.manifests("training") == []
    (first,) = [one for one in store.manifests("reporting") if one.key[0] == "0"]
    opened = store.open("reporting", "0" * 64, RunReport)
    assert store.manifest(opened) == first and opened.path == store.place / "reporting" / ("0" * 64)


def test_an_artifact_is_checked_where_it_lies(store: Store) -> None:
    published = publish(store)
    assert store.check(published.place) == published.path
    (published.path / "report.html").write_text("other")
    for place in (published.place, f"reporting/{'9' * 64}"):
        with pytest.raises(Damaged):
            store.check(place)
    assert published.path.is_dir()


def test_what_is_published_is_closed_to_others_at_every_level(store: Store) -> None:
    before = os.umask(0)
    try:
        published = publish(store)
    finally:
        os.umask(before)
    found = [published.path, *published.path.rglob("*")]
    assert len(found) == 5 and not any(path.stat().st_mode & 0o007 for path in found)


def test_a_folder_knows_its_place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(store)
    (tmp_path / "link").symlink_to(published.path)
    monkeypatch.setenv("HOME", str(store.place))
    folders = [published.path, published.path / "a" / "b", tmp_path / "link", Path("~", published.place)]
    assert [store.place_of(folder) for folder in folders] == [published.place] * 4
    others = [tmp_path, store.place, store.place / "reporting", store.place / ".work" / "training" / "a"]
    assert [store.place_of(folder) for folder in others] == [None] * 4


def test_a_work_directory_is_known_while_it_is_there(store: Store) -> None:
    store.workdir("training", KEY)
    assert store.has_workdir(f"training/{KEY}") and not store.has_workdir(f"sampling/{KEY}")
    store.drop_workdir("training", KEY)
    assert not store.has_workdir(f"training/{KEY}")


@pytest.mark.parametrize("name", ["mine", "", None])
def test_the_environment_says_where_the_store_is(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name is not None:
        monkeypatch.setenv("CODETUNE_STORE", name)
    place = tmp_path / (name or "store")
    assert Store.to_read().place == place and not place.exists()
    assert Store.from_environment().place == place and (place / ".work").is_dir()
    (place / ".work").rmdir()
    assert Store.to_read().place == place and (place / ".work").is_dir(), "who may write prepares it"


@pytest.mark.parametrize("closed", [".", ".runs"])
def test_who_may_not_write_reads_without_making_anything(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODETUNE_STORE", str(tmp_path / "store"))
    store = Store.from_environment()
    (store.place / ".work").rmdir()
    asked = []

    def access(path: Path, mode: int, *, effective_ids: bool) -> bool:
        asked.append((mode, effective_ids))
        return path != store.place / closed

    monkeypatch.setattr(os, "access", access)  # root may write anywhere
    assert Store.to_read().place == store.place and not (store.place / ".work").exists()
    assert set(asked) == {(os.W_OK, True)}
    assert Store.to_read().ledger.runs() == [] and not (store.place / ".runs" / "gate.lock").exists()


def test_a_place_holds_what_is_published_and_what_is_worked_at(store: Store) -> None:
    place = f"reporting/{KEY}"
    assert store.size(place) == 0
    publish(store)
    published = store.size(place)
    (store.workdir("reporting", KEY) / "part").write_bytes(bytes(1000))
    assert published > 6 and store.size(place) == published + 1000


def test_what_is_discarded_leaves_nothing_once_the_trash_is_emptied(store: Store) -> None:
    workdir = store.workdir("reporting", KEY)
    root = workdir.parents[2]
    (workdir / "large").write_bytes(bytes(10))
    records = root / ".records" / "old"
    records.mkdir(parents=True)
    for _ in range(2):
        store._throw(workdir)  # the second finds nothing
    assert [path.name for path in root.rglob("large")] == ["large"]
    store.empty_trash()
    assert not [*root.rglob("large")] and not records.parent.exists()


def test_a_store_is_made_below_folders_that_are_not_there(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "store"
    assert publish(Store(root)).path.is_dir() and root.stat().st_mode & 0o027 == 0


def test_a_store_is_made_where_a_link_leads(tmp_path: Path) -> None:
    """As on a disk that is mounted elsewhere, before the first run."""
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "store")
    opened = Store(tmp_path / "link")
    assert opened.place == tmp_path / "link" and (tmp_path / "disk" / "store" / ".runs").is_dir()
