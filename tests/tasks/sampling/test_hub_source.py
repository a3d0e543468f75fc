"""Data sets on the hub, through the real client against a hub on the loopback interface."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from artifacts.errors import InputError, TransientError
from tasks.sampling import SamplingConfig, source_fingerprint
from tests.hub import GITHUB_CODE_COMMIT, Hub, serve_github_code
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import Threads, bytes_of, dropped, everything, programs, write_jsonl

SOURCE = {"kind": "github-code", "shards": 2}
SHARDS = "*/resolve/*.parquet"


def test_sample_of_permissive_python_with_provenance(hub: Hub, sample: Sample) -> None:
    result = sample(source=SOURCE, files=60)
    rows = everything(result)
    assert len(rows) == 60 and result.source == "github-code@b5661e6b (2 of 3 shards)"
    assert {row["revision"] for row in rows} == {GITHUB_CODE_COMMIT} and result.languages == {"Python": 60}
    assert set(result.licenses) <= {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC"}
    assert "GPL-3.0-only" in dropped(result, "license")


def test_only_what_is_needed_is_read(hub: Hub, sample: Sample, shards: Path) -> None:
    result = sample(source={**SOURCE, "shards": 1}, files=10)
    read = {request.path for request in hub.served(SHARDS)}
    whole = sum(path.stat().st_size for path in (shards / "data").iterdir())
    assert len(read) == 1 and result.funnel[0].kept < 400
    assert hub.bytes_served < whole / 6


def test_row_groups_without_a_wanted_row_cost_no_contents(hub: Hub, sample: Sample, shards: Path) -> None:
    with pytest.raises(InputError, match="language dropped 1200 ") as nothing:
        sample(source={**SOURCE, "shards": 3}, languages=["Visual Basic"])
    assert nothing.value.field == "sampling" and "`languages`" in str(nothing.value.remedy)
    assert hub.bytes_served < sum(path.stat().st_size for path in (shards / "data").iterdir()) / 10


def test_workers_and_listing_order_change_nothing(hub: Hub, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample(source=SOURCE, files=80)
    repository = next(iter(hub.repositories.values()))
    backwards = repository.files()[::-1]
    monkeypatch.setattr(repository, "files", lambda: backwards)
    again = sample(Threads(7), source=SOURCE, files=80)
    other = sample(source=SOURCE, files=80, seed=1)
    assert bytes_of(first) == bytes_of(again) != bytes_of(other)
    assert first.funnel == again.funnel


def test_further_shards_are_read_when_the_first_give_too_little(hub: Hub, sample: Sample) -> None:
    result = sample(source={**SOURCE, "shards": 1}, files=1000)
    assert result.source.endswith("(3 of 3 shards)") and result.funnel[0].kept == 1200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": 429, "retry_after": 1, "match": SHARDS, "times": 1},
        {"kind": 429, "rate_limit": 1, "match": SHARDS, "times": 1},
        {"kind": 503, "match": SHARDS, "method": "GET", "times": 3},
        {"kind": 500, "match": "/api/*", "times": 1},
        {"kind": "break", "match": SHARDS, "after": 3000, "times": 6},
        {"kind": "break", "match": "/api/*", "after": 20, "times": 1},
    ],
    ids=["429", "429-rate-limit", "503", "500-info", "break", "break-info"],
)
def test_passing_faults_lose_nothing_and_double_nothing(
    fault: dict[str, object], hub: Hub, sample: Sample, undisturbed: str
) -> None:
    happening = hub.fail(**fault)  # type: ignore[arg-type]
    started = time.monotonic()
    assert bytes_of(sample(source=SOURCE, files=60)) == undisturbed
    assert happening.happened == happening.times
    assert time.monotonic() - started > float(fault.get("retry_after", fault.get("rate_limit", 0)))  # type: ignore[arg-type]


@pytest.fixture
def undisturbed(hub: Hub, sample: Sample) -> str:
    return bytes_of(sample(source=SOURCE, files=60))


def test_broken_transfer_goes_on_where_it_broke(hub: Hub, sample: Sample) -> None:
    hub.fail("break", SHARDS, method="GET", after=5000, times=1)
    sample(source={**SOURCE, "shards": 1}, files=10)
    broken, following = hub.served(SHARDS)[1:3] if hub.served(SHARDS)[0].method == "HEAD" else hub.served(SHARDS)[:2]
    start = int((broken.range or "").removeprefix("bytes=").split("-")[0])
    assert broken.sent and (following.range or "").startswith(f"bytes={start + broken.sent}-")


@pytest.mark.parametrize("kind", [503, "break"])
def test_giving_up_names_the_shard(kind: int | str, hub: Hub, sample: Sample) -> None:
    hub.fail(kind, "*train-00001*", method="GET", times=1000, after=0)
    with pytest.raises(TransientError, match=r"data/train-00001-of-00003\.parquet.* codeparrot/github-code.* 2\)\n"):
        sample(source={**SOURCE, "shards": 3, "attempts": 2}, files=1000)


def test_a_pause_that_is_too_long_is_not_waited_for(hub: Hub, sample: Sample) -> None:
    hub.fail(429, SHARDS, times=100, retry_after=3600)
    with pytest.raises(TransientError, match="429") as refusal:
        sample(source=SOURCE, files=10)
    assert "3600 s" in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("gated", "gated"), (401, "refuses"), (403, "HF_TOKEN"), (404, "does not show"), ("no-ranges", "like a hub")],
)
def test_lasting_faults_say_what_to_do(kind: int | str, words: str, hub: Hub, sample: Sample) -> None:
    hub.fail(kind, "/datasets/*", times=1000)
    with pytest.raises(InputError, match=words) as refusal:
        sample(source=SOURCE, files=10)
    assert refusal.value.remedy


def test_unknown_data_set_and_revision_are_refused(hub: Hub, sample: Sample) -> None:
    with pytest.raises(InputError, match="nobody/nothing") as unknown:
        sample(source={"kind": "hub", "dataset": "nobody/nothing"})
    assert unknown.value.field == "sampling.source.dataset" and "HF_TOKEN" in str(unknown.value.remedy)
    with pytest.raises(InputError, match="codeparrot/github-code at v9 ") as unknown:
        sample(source={"kind": "hub", "dataset": "codeparrot/github-code", "revision": "v9"})
    assert unknown.value.field == "sampling.source.dataset" and "branch, tag" in str(unknown.value.remedy)
    with pytest.raises(InputError, match="a/b/c") as unknown:
        sample(source={"kind": "hub", "dataset": "a/b/c"})
    assert unknown.value.field == "sampling.source.dataset" and "`owner/name`" in str(unknown.value.remedy)


def test_files_that_do_not_fit_are_refused_with_those_there_are(hub: Hub, sample: Sample) -> None:
    with pytest.raises(InputError, match=r"'test/\*\.parquet'") as refusal:
        sample(source={"kind": "hub", "dataset": "codeparrot/github-code", "files": "test/*.parquet"})
    assert refusal.value.field == "sampling.source.files"
    assert "data/train-00000-of-00003.parquet" in str(refusal.value.remedy)
    with pytest.raises(InputError, match=r"'code'.* content, repo_name") as refusal:
        sample(source={"kind": "hub", "dataset": "codeparrot/github-code", "columns": {"content": "code"}})
    assert refusal.value.field == "sampling.source.columns.content"


def test_any_data_set_of_json_lines(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", programs(300))
    columns = {"content": "content", "repo": "repo", "path": "path"}
    with Hub(datasets={"me/mine": (folder, "c" * 40)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.fail("break", "*.jsonl", method="GET", after=4000)
        source = {"kind": "hub", "dataset": "me/mine", "files": "*.jsonl", "columns": columns}
        result = sample(source=source, files=500)
    assert len(everything(result)) == 300 and everything(result)[0]["revision"] == "c" * 40


def test_a_row_group_as_large_as_the_shard_is_left_early(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.sampling import hub_source
    from tests.hub import write_github_code_shards

    (shard,) = write_github_code_shards(tmp_path / "set", n_shards=1, rows=1200, row_group=100_000)
    monkeypatch.setattr(hub_source, "_STREAM_BUFFER", 100_000)
    with Hub(datasets=serve_github_code(tmp_path / "set")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert len(everything(sample(source=SOURCE, files=10))) == 10
        assert hub.bytes_served < shard.stat().st_size / 2


def test_fingerprint_is_the_commit(hub: Hub, tmp_path: Path, shards: Path) -> None:
    def fingerprint(**source: object) -> str:
        return source_fingerprint(SamplingConfig.model_validate({"source": source}))

    pinned = fingerprint(**SOURCE)
    assert hub.requests == [], "a commit needs no resolving"
    assert fingerprint(kind="hub", dataset="codeparrot/github-code", revision="main") == pinned
    shutil.copytree(shards, tmp_path / "other")
    hub.repositories[("dataset", "codeparrot/github-code")].commit = "d" * 40
    assert fingerprint(kind="hub", dataset="codeparrot/github-code") != pinned
