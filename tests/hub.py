"""A hub on the loopback interface: what the real clients ask of huggingface.co, from folders, with faults on demand.

It serves folders as model and data set repositories at a fixed commit: repository info, trees (in pages), path infos,
and files with HEAD and Range. It has no xet storage, so that clients use plain HTTP. Set `HF_ENDPOINT` to `endpoint`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tasks.sampling.config import GITHUB_CODE, GithubCodeSource

GITHUB_CODE_COMMIT = GithubCodeSource().revision
_PAGE = 1000
"""Entries of one page of a tree, as on the hub."""


@dataclass
class Fault:
    """What goes wrong with requests whose path fits."""

    kind: int | str
    """A status (429, 503, 403…), `break` (the connection ends inside the body), `refuse` (it ends without an answer),
    `slow` (the body comes in pieces, with pauses), `long` (more is announced than the file has), `gated`, or
    `no-ranges`."""
    match: str = "*"
    """Glob over the path of the URL."""
    times: int = 1
    method: str | None = None
    retry_after: int | None = None
    after: int = 1000
    """Bytes of the body that are sent before a break."""
    rate_limit: int | None = None
    """Seconds that a `RateLimit` header names, as the hub sends it with its 429."""
    happened: int = 0

    @property
    def headers(self) -> dict[str, str]:
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        limit = {} if self.rate_limit is None else {"RateLimit": f'"resolvers";r=0;t={self.rate_limit}'}
        return {**retry, **limit}


@dataclass
class Repository:
    """A folder served as a repository."""

    kind: str
    """`model` or `dataset`."""
    name: str
    folder: Path
    commit: str
    older: Mapping[str, Path] = field(default_factory=dict)
    """Folders of earlier commits."""
    private: bool = False

    def at(self, revision: str) -> Repository | None:
        """The repository as it is, or was, at a branch or commit; None where it has no such revision."""
        if revision in ("main", self.commit):
            return self
        return Repository(self.kind, self.name, self.older[revision], revision) if revision in self.older else None

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Request:
    """One request that was served."""

    method: str
    path: str
    range: str | None
    sent: int = 0
    """Bytes of the body."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that leaves in the middle of an answer is what early stopping looks like from here.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Hub:
    """The server; use it as a context manager.

    Args:
        models: folders by repository name.
        datasets: folder and commit by repository name.
        older: earlier commits of models, as folders by commit, by repository name.
    """

    def __init__(
        self,
        models: Mapping[str, Path] = MappingProxyType({}),
        datasets: Mapping[str, tuple[Path, str]] = MappingProxyType({}),
        older: Mapping[str, Mapping[str, Path]] = MappingProxyType({}),
    ) -> None:
        self.repositories = {
            **{
                ("model", name): Repository("model", name, path, _commit(name), older.get(name, {}))
                for name, path in (models or {}).items()
            },
            **{("dataset", name): Repository("dataset", name, *pair) for name, pair in datasets.items()},
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (self.handler(),), {"hub": self}))

    @staticmethod
    def handler() -> type[Handler]:
        """What answers requests."""
        return Handler

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def bytes_served(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(request.sent for request in self.requests)

    def served(self, match: str) -> list[Request]:
        """The requests so far whose path fits a glob."""
        return [request for request in self.requests if fnmatchcase(request.path, match)]

    def fail(self, kind: int | str, match: str = "*", **kwargs: Any) -> Fault:
        """Let requests fail from now on: see `Fault`."""
        fault = Fault(kind, match, **kwargs)
        self.faults.append(fault)
        return fault

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                fits = fault.method in (None, method) and fnmatchcase(path, fault.match)
                if fits and fault.happened < fault.times:
                    fault.happened += 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """Answers requests of clients that read."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    # Each answer leaves in one packet: no waiting for acknowledgements between head and body.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self._body = body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._request = Request(self.command, unquote(url.path), self.headers.get("Range"))
        self._query, self._fault = parse_qs(url.query), self.hub.next_fault(self.command, unquote(url.path))
        with self.hub.lock:
            self.hub.requests.append(self._request)
        if self._fault and self._fault.kind == "refuse":
            self.close_connection = True
        elif self._fault and isinstance(self._fault.kind, int):
            self.refuse(self._fault.kind, None, f"fault {self._fault.kind}", self._fault.headers)
        elif self._fault and self._fault.kind == "gated":
            self.refuse(403, "GatedRepo", "Access to this repository is restricted")
        elif url.path.startswith("/api/"):
            self._api(url.path.removeprefix("/api/").split("/"), body)
        else:
            self._file(url.path.strip("/").split("/"))

    def _api(self, parts: list[str], body: bytes) -> None:
        repository = self.hub.repositories.get((parts[0].removesuffix("s"), "/".join(parts[1:3])))
        if repository is None:
            self.refuse(401, "RepoNotFound", "Repository not found")
            return
        verb, revision, path = [*parts[3:4], "info"][0], unquote([*parts[4:5], "main"][0]), unquote("/".join(parts[5:]))
        repository = repository.at(revision)
        if repository is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif verb in ("info", "revision"):
            self.answer(_info(repository))
        elif verb == "tree":
            self._tree(repository, path)
        elif verb == "paths-info":
            wanted = set(json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"])
            self.answer([_entry(repository, name) for name in repository.files() if name in wanted])
        else:
            self.refuse(404, None, "Not found")

    def _tree(self, repository: Repository, path: str) -> None:
        recursive = self._query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = list(_tree(repository, path, recursive))
        start = int(self._query.get("cursor", ["0"])[0])
        more = {}
        if start + _PAGE < len(entries):
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive={recursive}&cursor={start + _PAGE}"
            more = {"Link": f'<{address}>; rel="next"'}
        self.answer(entries[start : start + _PAGE], more)

    def _file(self, parts: list[str]) -> None:
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if kind == "dataset" else parts
        repository = self.hub.repositories.get((kind, "/".join(parts[:2])))
        if repository is None or parts[2:3] != ["resolve"]:
            self.refuse(401, "RepoNotFound", "Repository not found")
            return
        revision, name = unquote(parts[3]), unquote("/".join(parts[4:]))
        repository = repository.at(revision)
        if repository is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif name not in repository.files():
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})
        else:
            commit = {"X-Repo-Commit": repository.commit}
            self._send_file(repository.folder / name, {**commit, "ETag": f'"{_oid(repository, name)}"'})

    def _send_file(self, path: Path, headers: dict[str, str]) -> None:
        size = path.stat().st_size
        start, end, status = 0, size, 200
        ranges = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if ranges[1] and not (self._fault and self._fault.kind == "no-ranges"):
            start = int(ranges[0]) if ranges[0] else size - int(ranges[2])
            end, status = min(size, int(ranges[2]) + 1 if ranges[0] and ranges[2] else size), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        with path.open("rb") as file:
            file.seek(start)
            self._send(status, file.read(end - start), {**headers, "Accept-Ranges": "bytes"})

    def answer(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._send(status, b"", {"X-Error-Message": message, **named, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        breaks = self._fault is not None and self._fault.kind == "break" and self.command != "HEAD"
        self.send_response(status)
        kind = self._fault.kind if self._fault and self.command != "HEAD" else None
        if kind == "long":
            self.close_connection = True
        for name, value in {**headers, "Content-Length": str(len(body) + (kind == "long"))}.items():
            self.send_header(name, value)
        self.end_headers()
        if breaks and self._fault:
            body = body[: min(self._fault.after, len(body) - 1)]
            self.close_connection = True
        if self.command != "HEAD":
            for piece in _pieces(body, 8 if kind == "slow" else 1):
                self.wfile.write(piece)
            self._request.sent = len(body)
        self.wfile.flush()


def _pieces(body: bytes, count: int) -> Iterator[bytes]:
    """The body, with pauses between the pieces if there are several."""
    size = max(1, -(-len(body) // count))
    for start in range(0, len(body), size):
        if start:
            time.sleep(0.5)
        yield body[start : start + size]


def _info(repository: Repository) -> dict[str, Any]:
    return {
        "_id": _commit(repository.name)[:24],
        "id": repository.name,
        "sha": repository.commit,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": name} for name in repository.files()],
        **({"modelId": repository.name} if repository.kind == "model" else {}),
    }


def _tree(repository: Repository, path: str, recursive: bool) -> Iterator[dict[str, Any]]:
    prefix, folders = f"{path}/" if path else "", set[str]()
    for name in repository.files():
        if not name.startswith(prefix):
            continue
        first, slash, _ = name[len(prefix) :].partition("/")
        if slash and prefix + first not in folders:
            folders.add(prefix + first)
            yield {"type": "directory", "oid": _commit(prefix + first), "size": 0, "path": prefix + first}
        if recursive or not slash:
            yield _entry(repository, name)


def _entry(repository: Repository, name: str) -> dict[str, Any]:
    size = (repository.folder / name).stat().st_size
    return {"type": "file", "oid": _oid(repository, name), "size": size, "path": name}


def _oid(repository: Repository, name: str) -> str:
    stat = (repository.folder / name).stat()
    return _commit(f"{name}:{stat.st_size}:{stat.st_mtime_ns}")


def _commit(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


# --- shards of the shape of codeparrot/github-code ------------------------------------------------------------


def write_github_code_shards(folder: Path, n_shards: int, rows: int, seed: int = 0, row_group: int = 100) -> list[Path]:
    """Shards with the raw columns and names of `codeparrot/github-code`, mixed languages and licences, of real code.

    Python comes from the installed packages and the standard library, other languages from what lies beside it.
    Repositories are mixed across shards, as in the original. No row occurs twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    chooser = random.Random(seed)
    order = list(_real_files())
    chooser.shuffle(order)
    files = ((Path(name), root) for name, root in order)
    pool = ((path, root) for path, root in files if path.is_file() and path.stat().st_size < 200_000)
    schema = pa.schema(
        [(name, pa.string()) for name in ("content", "repo_name", "path", "license")] + [("size", pa.int32())]
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    written = []
    for shard in range(n_shards):
        chosen = list(islice(pool, rows))
        assert len(chosen) == rows, f"only {len(order)} files of real code on this machine"
        table = pa.Table.from_pylist([_github_row(path, root) for path, root in chosen], schema=schema)
        written.append(folder / "data" / f"train-{shard:05d}-of-{n_shards:05d}.parquet")
        # The size of a dictionary is looked at once per written batch: small ones keep it in proportion to the shard.
        pq.write_table(table, written[-1], row_group_size=row_group, compression="snappy", write_batch_size=64)
    return written


_LICENSES = ("mit", "apache-2.0", "bsd-3-clause", "gpl-3.0", "gpl-2.0", "isc", "lgpl-2.1", "mpl-2.0")
_SUFFIXES = frozenset({".py", ".c", ".h", ".js", ".css", ".html", ".sh", ".md", ".cpp", ".f90", ".sql"})


@cache
def _real_files() -> tuple[tuple[str, Path], ...]:
    """Files of code with the folder that they are installed in, in the order of their names."""
    paths = sysconfig.get_paths()
    library, packages = Path(paths["stdlib"]), Path(paths["purelib"])
    found = []
    for root in (library, packages):
        for folder, folders, names in os.walk(root):
            # The standard library's folder may hold that of the installed packages.
            # Built by the first Prefect server: the sample must not depend on whether there was one.
            left_out = {str(packages), f"{folder}/ui_build", f"{folder}/ui_v2_build"}
            folders[:] = sorted(name for name in folders if f"{folder}/{name}" not in left_out)
            found += [(f"{folder}/{name}", root) for name in sorted(names) if name[name.rfind(".") :] in _SUFFIXES]
    return tuple(found)


def _github_row(path: Path, root: Path) -> dict[str, Any]:
    below = path.relative_to(root)
    # A package's subpackages count as repositories, so that there are enough to divide.
    repo = "/".join(
        ["someone" if root.name == "site-packages" else "python", "-".join(below.parts[:-1][:2]) or below.stem]
    )
    content = path.read_text(encoding="utf-8", errors="replace")
    license_ = _LICENSES[hashlib.sha256(repo.encode()).digest()[0] % len(_LICENSES)]
    return {
        "content": content,
        "repo_name": repo,
        "path": below.as_posix(),
        "license": license_,
        "size": len(content.encode()),
    }


def serve_github_code(folder: Path) -> dict[str, tuple[Path, str]]:
    """What `Hub(datasets=…)` takes to serve a folder of shards as the pinned commit of `codeparrot/github-code`."""
    return {GITHUB_CODE: (folder, GITHUB_CODE_COMMIT)}
