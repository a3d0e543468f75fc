"""The store: finished artifacts under `<root>/<stage>/<key>/`, each with a manifest that says what it must contain.

A stage writes into a work directory; `publish` hashes and syncs what lies there, writes the manifest last and moves
the whole into place with one rename. What is opened is verified first: an artifact that is incomplete or altered is
never served, but set aside with a line in the log that says why, and built again.

This class is the only code that knows where things lie. Another implementation may keep them elsewhere and bring them
here on `open`; nobody else may build a path into the store.

What is made here is closed to others than its owner and group, whatever the umask says: it holds people's code. Who may
only read needs no lock and can take none.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import Field, ValidationError

from artifacts import digest, disks, durable, locks, reading
from artifacts.errors import InputError
from artifacts.ledger import Ledger
from artifacts.paths import real
from artifacts.schema import Handle, Record

log = logging.getLogger(__name__)
H = TypeVar("H", bound=Handle)

MANIFEST = "manifest.json"


class FileEntry(Record):
    """What one file of an artifact must be."""

    size: int
    """Bytes."""
    sha256: str


class Manifest(Record):
    """Everything about an artifact but its bytes."""

    stage: str
    key: str
    fingerprint: str
    files: dict[str, FileEntry]
    """By path within the artifact."""
    handle: dict[str, Any]
    """The handle as JSON."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """What the key was made of, library versions, when and how long: for people and for later questions."""
    checksum: str = ""
    """Hex sha256 over all the above: the manifest vouches for the files, and this for the manifest."""

    def sealed(self) -> Manifest:
        """The same with its checksum."""
        return self.model_copy(update={"checksum": self._sum()})

    @property
    def intact(self) -> bool:
        """Whether it is what was sealed."""
        return self.checksum == self._sum()

    def _sum(self) -> str:
        return digest.of_json(self.model_dump_json(exclude={"checksum"}))  # as it is written: NaN stands there as null


class Damaged(Exception):  # noqa: N818 - a finding about an artifact
    """An artifact is not what its manifest says; the message says in which way."""


class Store:
    """Artifacts by stage and key on a local disk.

    Args:
        writes: to make and remove things there. Without, nothing is made there and no lock is taken.

    Raises:
        InputError: when the root cannot be written, or not be read.
    """

    def __init__(self, root: Path, *, writes: bool = True) -> None:
        self._root = disks.folder_of(str(root)).expanduser().absolute()
        self.ledger = Ledger(self._root / ".runs", writes=writes)
        try:
            if writes:
                real(self._root).mkdir(parents=True, exist_ok=True, mode=0o750)
                for folder in (self._root, *(self._root / name for name in (".locks", ".work", ".runs"))):
                    if folder != self._root:
                        durable.closed_folder(folder)
                    probe = folder / f".writable-{os.getpid()}"
                    probe.touch()
                    probe.unlink()
            elif self._root.exists():
                for folder in (self._root, self.ledger.folder, self.registry):
                    if folder.exists():
                        next(folder.iterdir(), None)
        except OSError as error:
            raise InputError(
                f"cannot {'write to' if writes else 'read'} {self._root}: {error.strerror or error}",
                field="store",
                remedy=f"set CODETUNE_STORE to a folder that you may {'write to' if writes else 'read'}",
            ) from error

    @classmethod
    def from_environment(cls) -> Store:
        """The store at `CODETUNE_STORE`, or `./store`."""
        return cls(disks.folder_of(os.environ.get("CODETUNE_STORE") or "store"))

    @classmethod
    def to_read(cls) -> Store:
        """The same for who only looks: it may be another user's, or not be there yet."""
        root = disks.folder_of(os.environ.get("CODETUNE_STORE") or "store").expanduser()
        return cls(
            root, writes=all(os.access(folder, os.W_OK, effective_ids=True) for folder in (root, root / ".runs"))
        )

    @property
    def caution(self) -> str | None:
        """What to keep in mind about where it is."""
        return disks.caution(self._root)

    @property
    def registry(self) -> Path:
        """Where the registry of models lies."""
        return self._root / ".registry"

    @property
    def place(self) -> Path:
        """A folder of the file system that artifacts will be written to, for looking at free space."""
        return self._root

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Hold the right to build one artifact. Waits for another holder; the kernel frees a dead one's lock.

        Raises:
            StageError: another run keeps it for longer than a run may take.
        """
        lock = self._lock(f"{stage}/{key}")
        lock.acquire(locks.AGES)
        try:
            yield
        finally:
            lock.release()

    def _lock(self, place: str) -> locks.Lock:
        stage, _, key = place.partition("/")
        return locks.Lock(self._root / ".locks" / f"{stage}-{key}.lock", f"building {stage} {key[:12]}")

    def workdir(self, stage: str, key: str, *, keep: bool = False) -> Path:
        """The folder to build an artifact in: empty, or with `keep` as the last attempt left it."""
        folder = self._root / ".work" / stage / key
        if not keep:
            _remove(folder)
        durable.closed_folder(folder.parent)
        durable.closed_folder(folder)
        return folder

    def has_workdir(self, place: str) -> bool:
        """Whether the work directory of an artifact is there."""
        return (self._root / ".work" / place).is_dir()

    def sweep(self, stage: str, key: str) -> None:
        """Forget what a run left that was killed between publishing and tidying up; not while somebody builds there."""
        if (self._root / ".work" / stage / key).exists():
            lock = self._lock(f"{stage}/{key}")
            if lock.try_acquire():
                self.drop_workdir(stage, key)
                lock.release()

    def drop_workdir(self, stage: str, key: str) -> None:
        """Forget an attempt."""
        _remove(self._root / ".work" / stage / key)

    def publish(self, stage: str, key: str, handle: H, workdir: Path, provenance: dict[str, Any] | None = None) -> H:
        """Make what lies in `workdir` the artifact of this key, whole or not at all. Call with the lock held."""
        names = sorted(path.relative_to(workdir).as_posix() for path in workdir.rglob("*") if path.is_file())
        entries = {name: _entry(workdir / name) for name in names if name != MANIFEST}
        content = {
            name: entry.sha256
            for name, entry in entries.items()
            if not any(fnmatch(name, pattern) for pattern in handle.measurements)
        }
        finished = handle.model_copy(update={"place": f"{stage}/{key}", "fingerprint": digest.of_json(content)})
        manifest = Manifest(
            stage=stage,
            key=key,
            fingerprint=finished.fingerprint,
            files=entries,
            handle=finished.model_dump(mode="json"),
            provenance=provenance or {},
        ).sealed()
        # The manifest is written last, so its existence means that everything it lists is on the disk.
        durable.write(workdir / MANIFEST, manifest.model_dump_json(indent=1))
        for folder in [workdir, *(path for path in workdir.rglob("*") if path.is_dir())]:
            durable.close_to_others(folder)
            durable.sync(folder)
        final = self._root / stage / key
        durable.closed_folder(final.parent)
        _remove(final)
        workdir.rename(final)
        durable.sync(final.parent)
        return finished.model_copy(update={"path": final})

    def find(self, stage: str, key: str, kind: type[H]) -> H | None:
        """The verified artifact of this key, or None when there is none that can be served."""
        try:
            return self.open(stage, key, kind)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            log.warning("%s artifact %s is not served: %s; it will be built again", stage, key[:12], damage)
            _remove(self._root / stage / key)
            return None

    def open(self, stage: str, key: str, kind: type[H]) -> H:
        """The artifact of this key, verified. Nothing is removed.

        Raises:
            FileNotFoundError: there is none.
            Damaged: it cannot be served.
        """
        folder = self._root / stage / key
        if not folder.exists():
            raise FileNotFoundError(folder)
        manifest = verified(folder)
        try:
            return kind.model_validate({**manifest.handle, "path": folder})
        except ValidationError:
            raise Damaged("its manifest does not fit this version of codetune") from None

    def check(self, place: str) -> Path:
        """The folder of an artifact, verified; unlike `find` it leaves a damaged one alone.

        Raises:
            Damaged: it is missing, incomplete or altered.
        """
        folder = self._root / place
        if not folder.is_dir():
            raise Damaged("it is not in the store")
        verified(folder)
        return folder

    def place_of(self, folder: Path) -> str | None:
        """The place that a folder of this store, or one inside it, belongs to; None for any other folder."""
        try:
            parts = real(folder.expanduser()).relative_to(real(self._root)).parts
        except ValueError:
            return None
        return "/".join(parts[:2]) if len(parts) >= 2 and not parts[0].startswith(".") else None

    def manifest(self, handle: Handle) -> Manifest:
        """The manifest of a published artifact."""
        return read_manifest(self._root / handle.place)

    def places(self) -> list[str]:
        """`<stage>/<key>` of all artifacts, whole or not."""
        return _places(self._root)

    def attempts(self) -> list[str]:
        """`<stage>/<key>` of all work directories."""
        return _places(self._root / ".work")

    def size(self, place: str) -> int:
        """Bytes on the disk of an artifact and of a work directory of that key."""
        folders = (self._root / place, self._root / ".work" / place)
        paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return sum(_size(path) for path in paths)

    def busy(self, place: str) -> bool:
        """Whether somebody is building that artifact at this moment."""
        lock = self._lock(place)
        if not lock.try_acquire():
            return True
        lock.release()
        return False

    def discard(self, place: str) -> None:
        """Take an artifact away, in a moment; `empty_trash` frees the space."""
        self._throw(self._root / place)

    def discard_attempt(self, place: str) -> None:
        """Take a work directory away."""
        self._throw(self._root / ".work" / place)

    def empty_trash(self) -> None:
        """Free the space of what was discarded, now or by somebody who was killed over it."""
        for name in (".trash", ".records"):  # Prefect's records of results, which version 0.1 kept
            _remove(self._root / name)

    def _throw(self, folder: Path) -> None:
        trash = durable.closed_folder(self._root / ".trash")
        with suppress(FileNotFoundError):
            folder.rename(trash / uuid4().hex)

    def manifests(self, stage: str) -> list[Manifest]:
        """The manifests of all artifacts of a stage, newest first; those that cannot be read are left out."""
        found = []
        for path in (self._root / stage).glob(f"*/{MANIFEST}"):
            with suppress(Damaged):
                found.append(read_manifest(path.parent))
        return sorted(found, key=lambda manifest: str(manifest.provenance.get("finished")), reverse=True)


def _places(root: Path) -> list[str]:
    if not root.exists():
        return []
    stages = (folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return sorted(f"{stage.name}/{folder.name}" for stage in stages for folder in stage.iterdir() if folder.is_dir())


def _remove(folder: Path) -> None:
    """As far as it can be done. What is no folder stays: to be opened as one, a FIFO would wait for ever."""
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a run that is at work has just removed it
        return 0


def read_manifest(folder: Path) -> Manifest:
    """The manifest in an artifact's folder.

    Raises:
        Damaged: there is none, or it is not what was written.
    """
    if not os.path.lexists(folder / MANIFEST):
        raise Damaged("it has no manifest")
    try:
        manifest = Manifest.model_validate_json(reading.read_text(folder / MANIFEST))
    except (ValidationError, InputError) as error:
        if isinstance(error.__cause__, PermissionError):
            raise error.__cause__ from None  # it may be whole: that it cannot be read is the disk's fault
        raise Damaged("its manifest cannot be read") from None
    if not manifest.intact:
        raise Damaged("its manifest was altered")
    return manifest


def verified(folder: Path, below: str = "") -> Manifest:
    """The manifest in an artifact's folder, in this store or elsewhere; its files were read, and are what it says.

    Args:
        below: what the names of the files that are read begin with.

    Raises:
        Damaged: one is missing or altered, or so is the manifest.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        if not name.startswith(below):
            continue
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        size = path.stat().st_size
        if size != entry.size:
            raise Damaged(f"{name} has {size} bytes instead of {entry.size}")
        if digest.of_file(path) != entry.sha256:
            raise Damaged(f"the contents of {name} were altered")
    return manifest


def _entry(path: Path) -> FileEntry:
    durable.close_to_others(path)
    durable.sync(path)
    return FileEntry(size=path.stat().st_size, sha256=digest.of_file(path))
