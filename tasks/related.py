"""Related files: what of its repository a person has open who works on a file.

First the files that it imports, in the order of its imports, then its neighbours in the folder. Imports are read with
expressions, not resolved as the language would: what they name is a file whose path ends so. The files are on disk, in
a database of their own, so that memory does not grow with the repository.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NamedTuple

MOST, MOST_IMPORTS = 8, 64
"""Files that are related to one, and imports that are looked at."""
_INDEXES = ("__init__", "index", "mod")
"""Names of files that stand for their folder."""
_FOLDERS = ("GO",)
"""Languages that import folders."""

_PYTHON = re.compile(r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+\(?([^\n#)]*)|import[ \t]+([^\n#]+))", re.M)
_QUOTED = re.compile(r"""(?:\bfrom|\bimport|\brequire)\b[ \t]*\(?[ \t]*['"]([^'"\n]+)['"]""")
_DOTTED = re.compile(r"^[ \t]*(?:import|use)[ \t]+(?:static[ \t]+|function[ \t]+)?([\w.\\]+)", re.M)
_GO = re.compile(r'^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"([\w./-]+)"[ \t]*$', re.M)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.M)
_RUST = re.compile(
    r"^[ \t]*(?:pub(?:\([\w ]+\))?[ \t]+)?(?:use[ \t]+((?:crate|super|self)(?:::\w+)+)|mod[ \t]+(\w+);)", re.M
)
_RUBY = re.compile(r"""^[ \t]*require(_relative)?[ \t(]+['"]([^'"\n]+)['"]""", re.M)

Parts = tuple[str, ...]


class RelatedFile(NamedTuple):
    """Another file of a repository."""

    path: str
    text: str
    """Its beginning."""


class Target(NamedTuple):
    """What an import names: the end of a path, without the extension."""

    parts: Parts
    is_whole: bool = False
    """Whether it is the whole path, from the repository's top."""


class Repositories:
    """The files of one side of a sample by repository. Close it to remove it.

    Args:
        rows: `repo`, `path`, `language` and `content` of each file.
        folder: where the database is kept meanwhile.
        length: characters that are kept of each file.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], folder: Path, length: int) -> None:
        self._file = folder / "repositories.sqlite"
        self._file.unlink(missing_ok=True)  # of an attempt that was killed
        self._database = sqlite3.connect(self._file, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE files (repo TEXT, folder TEXT, name TEXT, path TEXT, text TEXT)",
            "BEGIN",
        ):
            self._database.execute(statement)
        self._database.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
            (
                (row["repo"], *_placed(row["path"], row["language"]), row["path"], row["content"][:length])
                for row in rows
            ),
        )
        for statement in (
            "COMMIT",
            "CREATE INDEX named ON files (repo, name)",
            "CREATE INDEX beside ON files (repo, folder, path)",
        ):
            self._database.execute(statement)

    def __enter__(self) -> Repositories:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._file.unlink()

    def related(self, row: dict[str, Any]) -> list[RelatedFile]:
        """At most `MOST` files of its repository that are related to a file, the most related first."""
        found: dict[str, RelatedFile] = {}
        for file in (*self._imported(row), *self._beside(row)):
            if file.path != row["path"] and len(found) < MOST:
                found.setdefault(file.path, file)
        return list(found.values())

    def _imported(self, row: dict[str, Any]) -> Iterator[RelatedFile]:
        here = PurePosixPath(row["path"]).parts[:-1]
        for choices in imports(row["language"], row["path"], row["content"]):
            for target in choices:
                if file := self._named(row["repo"], here, target):
                    yield file
                    break

    def _named(self, repo: str, here: Parts, target: Target) -> RelatedFile | None:
        query = "SELECT path, text, folder FROM files WHERE repo=? AND name=? ORDER BY path, rowid LIMIT 256"
        nearest: tuple[int, RelatedFile] | None = None
        for path, text, folder in self._database.execute(query, (repo, target.parts[-1])):
            parts = (*PurePosixPath(folder).parts, target.parts[-1])
            if not _fits(parts, here, target):
                continue
            shared = sum(1 for _ in _common(parts, here))
            if nearest is None or shared > nearest[0]:
                nearest = shared, RelatedFile(path, text)
        return nearest and nearest[1]

    def _beside(self, row: dict[str, Any]) -> Iterator[RelatedFile]:
        """The files around it in its folder's list, alternately after and before it."""
        query = "SELECT path, text FROM files WHERE repo=? AND folder=? AND path {0} ? ORDER BY path {1}, rowid LIMIT ?"
        place = (row["repo"], _placed(row["path"], row["language"])[0], row["path"], MOST)
        after, before = (
            [RelatedFile(*found) for found in self._database.execute(query.format(*order), place)]
            for order in ((">", "ASC"), ("<", "DESC"))
        )
        for number in range(MOST):
            yield from (*after[number : number + 1], *before[number : number + 1])


def imports(language: str, path: str, content: str) -> list[list[Target]]:
    """What a file imports, in order: of each import the targets that it may mean, the likeliest first."""
    here = PurePosixPath(path).parts[:-1]
    found: dict[tuple[Target, ...], None] = {}
    for choices in _imports(language, here, content):
        named = tuple(target for target in choices if target.parts)
        if named:
            found.setdefault(named)
        if len(found) == MOST_IMPORTS:
            break
    return [list(choices) for choices in found]


def _imports(language: str, here: Parts, content: str) -> Iterator[list[Target]]:
    match language:
        case "Python":
            for match in _PYTHON.finditer(content):
                yield from _python(here, match[1], match[2] or match[3] or "")
        case "JavaScript" | "TypeScript":
            for match in _QUOTED.finditer(content):
                if match[1].startswith("."):
                    yield [_from(here, match[1])]
        case "Java" | "Scala" | "PHP" | "C#":
            for match in _DOTTED.finditer(content):
                parts = tuple(filter(None, re.split(r"[.\\]", match[1])))
                yield [Target(parts), Target(parts[:-1])] if len(parts) > 2 else [Target(parts)]
        case "GO":
            for match in _GO.finditer(content):
                parts = tuple(match[1].split("/"))
                # the module's own name stands first and is in no path
                yield [Target(parts[start:]) for start in range(len(parts) - 1)]
        case "C" | "C++":
            for match in _INCLUDE.finditer(content):
                parts = _stem(PurePosixPath(match[1]))
                yield [_from(here, match[1]), Target(parts)]
        case "Rust":
            for match in _RUST.finditer(content):
                parts = tuple(
                    part for part in (match[1] or match[2]).split("::") if part not in ("crate", "super", "self")
                )
                yield [Target(parts), Target(parts[:-1])]
        case "Ruby":
            for match in _RUBY.finditer(content):
                yield [_from(here, match[2]) if match[1] else Target(_stem(PurePosixPath(match[2])))]


def _python(here: Parts, module: str | None, names: str) -> Iterator[list[Target]]:
    listed = [name.split()[0] for name in names.replace("\\", " ").split(",") if name.strip()]
    if module is None:
        yield from ([Target(tuple(filter(None, name.split("."))))] for name in listed)
        return
    dots = len(module) - len(module.lstrip("."))
    parts = tuple(filter(None, module.split(".")))
    if dots > len(here) + 1:
        return
    if dots:
        parts = (*here[: len(here) - dots + 1], *parts)
    for name in listed or [""]:
        inner = Target((*parts, name), bool(dots)) if name.isidentifier() else Target(())
        yield [inner, Target(parts, bool(dots))]


def _from(here: Parts, written: str) -> Target:
    """A path as it is written in a file of the folder `here`."""
    parts = list(here)
    for part in _stem(PurePosixPath(written)):
        if part == "..":
            if not parts:
                return Target(())
            parts.pop()
        else:
            parts.append(part)
    return Target(tuple(parts), is_whole=True)


def _stem(path: PurePosixPath) -> Parts:
    """Its parts, without an extension; of `index` and its like the folder alone."""
    parts = (
        (*path.parts[:-1], path.stem)
        if path.suffix in (".js", ".ts", ".tsx", ".rb", ".h", ".hpp", ".hh")
        else path.parts
    )
    return parts[:-1] if parts[-1:] and parts[-1] in _INDEXES and len(parts) > 1 else parts


def _placed(path: str, language: str) -> tuple[str, str]:
    """The folder of a file, and the name by which it is imported."""
    whole = PurePosixPath(path)
    folder, name = whole.parent, whole.name.partition(".")[0]
    if (name in _INDEXES or language in _FOLDERS) and folder.name:
        return str(folder), folder.name
    return str(folder), name


def _fits(parts: Parts, here: Parts, target: Target) -> bool:
    """Whether the file is the one that is named: `parts` are those of its folder and its name."""
    name = parts[-1]
    # what stands for its folder has the folder's name twice
    whole = parts[:-1] if len(parts) > 1 and parts[-2] == name else parts
    if target.is_whole:
        return target.parts in (parts, whole)
    if len(target.parts) == 1:  # `import types` is mostly no file of the repository
        return parts[:-1] == here[: len(parts) - 1] or whole[:-1] == here[: len(whole) - 1]
    return target.parts in (parts[-len(target.parts) :], whole[-len(target.parts) :])


def _common(parts: Parts, others: Parts) -> Iterator[str]:
    for part, other in zip(parts, others, strict=False):
        if part != other:
            return
        yield part
