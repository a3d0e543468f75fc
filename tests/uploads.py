"""A hub on the loopback interface that also takes files, as huggingface.co takes them of the real client over HTTP.

Repositories are made, large files go to a storage by their sha256 and stay there whether or not a commit names them,
and a commit names all files. What was committed can be read as from `tests.hub.Hub`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub import Handler, Hub, Repository, Request

TOKEN = "hf_" + "aB3dEfGh" * 4
LARGE = 4096
"""Bytes from which a file goes to the storage."""


class TakingHub(Hub):
    """The server; use it as a context manager. Who writes needs `TOKEN`. Nothing of it is served to the client's Xet.

    Args:
        folder: where repositories are made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.stored: dict[str, bytes] = {}
        """Large files by sha256."""
        self.commits: list[dict[str, Any]] = []
        """What each commit said at its head."""

    @staticmethod
    def handler() -> type[Handler]:
        """What answers requests."""
        return _TakingHandler

    def add(self, name: str, *, private: bool) -> Repository:
        """Make an empty repository."""
        place = self.folder / name
        place.mkdir(parents=True)
        self.repositories["model", name] = Repository("model", name, place, "0" * 40, private=private)
        return self.repositories["model", name]


class _TakingHandler(Handler):
    hub: TakingHub

    def _serve(self) -> None:
        if self.command == "PUT":
            self._take()
        else:
            super()._serve()

    def _take(self) -> None:
        """A large file."""
        path = urlsplit(self.path).path
        self._request, self._fault = Request("PUT", path, None), self.hub.next_fault("PUT", path)
        with self.hub.lock:
            self.hub.requests.append(self._request)
        if self._fault and self._fault.kind == "break":
            self.rfile.read(self._fault.after)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._fault and isinstance(self._fault.kind, int):
            self.refuse(self._fault.kind, None, "fault", self._fault.headers)
        elif hashlib.sha256(body).hexdigest() != path.rpartition("/")[2]:
            self.refuse(400, None, "other contents")
        else:
            self.hub.stored[path.rpartition("/")[2]] = body
            self.answer({})

    def _api(self, parts: list[str], body: bytes) -> None:
        name, verb = "/".join(parts[1:3]), [*parts[3:4], ""][0]
        if self.command == "POST" and (parts == ["repos", "create"] or verb in ("preupload", "commit")):
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.refuse(401, None, "Invalid credentials")
            if parts == ["repos", "create"]:
                return self._create(json.loads(body))
            repository = self.hub.repositories[parts[0].removesuffix("s"), name]
            if verb == "commit":
                return self._commit(repository, [json.loads(line) for line in body.splitlines()])
            return self._modes(repository, json.loads(body)["files"])
        if parts[:1] == ["validate-yaml"]:
            return self.answer({"errors": [], "warnings": []})
        return super()._api(parts, body)

    def _file(self, parts: list[str]) -> None:
        if parts[2:] == ["info", "lfs", "objects", "batch"] and self.command == "POST":
            return self.answer(
                {"transfer": "basic", "objects": [self._place(one) for one in json.loads(self._body)["objects"]]}
            )
        return super()._file(parts)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if ("model", name) in self.hub.repositories:
            return self.refuse(409, None, "You already created this model repo")
        self.hub.add(name, private=asked.get("visibility") == "private")
        return self.answer({"url": f"{self.hub.endpoint}/{name}"})

    def _modes(self, repository: Repository, files: list[dict[str, Any]]) -> None:
        told = []
        for one in files:
            place = repository.folder / one["path"]
            told.append(
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(place.read_bytes()) if place.is_file() else None,
                }
            )
        self.answer({"files": told})

    def _place(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.hub.stored:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/storage/{one['oid']}", "header": {}}}}

    def _commit(self, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines[1:]:
            told = line["value"]
            place = repository.folder / unquote(told["path"])
            place.parent.mkdir(parents=True, exist_ok=True)
            large = line["key"] == "lfsFile"
            place.write_bytes(self.hub.stored[told["oid"]] if large else base64.b64decode(told["content"]))
        self.hub.commits.append(lines[0]["value"])
        repository.commit = hashlib.sha1(str(len(self.hub.commits)).encode()).hexdigest()
        self.answer({"commitUrl": f"{self.hub.endpoint}/{repository.name}/commit/main", "commitOid": repository.commit})


def _oid(content: bytes) -> str:
    """As git calls a file, or as the storage calls a large one."""
    large = len(content) >= LARGE
    return (
        hashlib.sha256(content).hexdigest()
        if large
        else hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
    )
