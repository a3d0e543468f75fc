"""The licence of a file: what the file says itself, else what the nearest folder says that holds a licence.

In a file: `SPDX-License-Identifier`. In a folder: the texts of its licence files and of `LICENSES/` (REUSE),
`REUSE.toml`, and the field of a package's manifest, which also says whether of several licences one may be chosen.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.sampling.languages import language_of
from tasks.sampling.licence_ids import UNKNOWN, all_of, any_of, canonical, ids_in, is_exception, is_spdx
from tasks.sampling.licence_texts import recognize

_NAMES = re.compile(
    r"(?:(?:mit|apache|bsd|isc|[al]?gpl|mpl|epl|boost)[\w.-]*[-_.])?(?:(?:un)?licen[cs]es?|copying|copyright)(?:[-_.].+)?",
    re.IGNORECASE,
)
_OF_OTHERS = re.compile(r"3rd|third|vendor|bundled|external|notice|header|template", re.IGNORECASE)
"""In the name of a file that is about code from elsewhere."""
_PROSE = frozenset({None, "Markdown", "HTML", "TeX"})
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
_CLOSERS = re.compile(r"\s*(?:\*/|-->|\*\)|-\}|[#%]\}|\"{1,3}|'{1,3})?[\s,;)]*$")
"""The end of a comment behind the tag."""
_CHOICE = re.compile(r"\beither\b|dual[- ]?licen[cs]ed|at your (?:option|choice)|choice of", re.IGNORECASE)
_POINTER = 1500
"""Characters up to which a text without a licence only says where the licences are."""
_HEAD = 8192
"""Bytes of a file in which it says its licence."""
_LONGEST = 1 << 20
"""Bytes of a licence file or manifest."""


class Licences:
    """The licences below some folders; each folder is read once."""

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder] = {}

    def of(self, file: Path, root: Path, head: bool = True) -> str:
        """The licence of a file as an SPDX expression; `unknown` where nothing up to `root` says it.

        Args:
            head: look into the file, too.
        """
        if head and (said := _tags(_read(file, _HEAD)) or _tags(_read(file.with_name(file.name + ".license"), _HEAD))):
            return said
        for folder in file.parents:
            if folder not in self._folders:
                self._folders[folder] = _Folder(folder)
            here = self._folders[folder]
            if said := here.annotated(file) or here.licence:
                return said
            if folder == root or root not in folder.parents:
                break
        return UNKNOWN


class _Folder:
    """What a folder says about licences."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except OSError:
            names = []
        self._annotations = list(_annotations(path / "REUSE.toml")) if "REUSE.toml" in names else []
        self.licence = self._decide(names)

    def annotated(self, file: Path) -> str | None:
        """What `REUSE.toml` says of a file; of several entries the last."""
        name = file.relative_to(self._path).as_posix()
        return next((licence for spec, licence in reversed(self._annotations) if spec.match_file(name)), None)

    def _decide(self, names: list[str]) -> str | None:
        texts = [
            _read(self._path / name, _LONGEST)
            for name in names
            if _NAMES.fullmatch(name) and not _OF_OTHERS.search(name) and language_of(name) in _PROSE
        ]
        found = [_in_text(text) for text in texts]
        said = {name for names_found in found for name in names_found}
        if not said and "LICENSES" in names:
            said = set(_reuse(self._path / "LICENSES"))
        # additions to a licence are put beside its text: together they are one
        if "LGPL-3.0-only" in said:
            said.discard("GPL-3.0-only")
        declared = next(filter(None, (read(self._path / name) for name, read in _MANIFESTS if name in names)), None)
        rest = [text for text, known in zip(texts, found, strict=True) if not known and text.strip()]
        unread = {UNKNOWN} if any(len(text) > _POINTER for text in rest) else set()
        if declared and ids_in(declared) >= ids_in(all_of(said)) - {UNKNOWN} and not unread:
            return declared
        if not said and not declared:
            return None
        if said and not unread and any(_CHOICE.search(text) for text in rest):
            said = {any_of(said)}
        return all_of(said | unread | ({declared} if declared else set()))


def _in_text(text: str) -> tuple[str, ...]:
    if tagged := _tags(text[:_HEAD]):
        return (tagged,)
    if found := recognize(text):
        return found
    name = canonical(text.strip())
    return (name,) if is_spdx(name) else ()


def _tags(text: str) -> str | None:
    """What `SPDX-License-Identifier` says in a text, where it is an SPDX expression."""
    said = {canonical(_CLOSERS.sub("", value)) for value in _TAG.findall(text)}
    known = {name for name in said if is_spdx(name)}
    return all_of(known) if known else None


def _reuse(folder: Path) -> Iterator[str]:
    """The licences whose texts are kept in `LICENSES/`, each in a file that has the licence's id as its name."""
    try:
        stems = [
            path.name.removesuffix(path.suffix if path.suffix in (".txt", ".md") else "") for path in folder.iterdir()
        ]
    except OSError:
        return
    yield from (name for stem in stems if is_spdx(name := canonical(stem)) and not is_exception(name))


def _annotations(file: Path) -> Iterator[tuple[Any, str]]:
    from pathspec import GitIgnoreSpec

    for entry in _table(_toml(file), "annotations", list) or ():
        entry = entry if isinstance(entry, dict) else {}
        paths, names = (_strings(entry.get(key)) for key in ("path", "SPDX-License-Identifier"))
        known = [name for name in map(canonical, names) if is_spdx(name)]
        if known:
            yield GitIgnoreSpec.from_lines("/" + path for path in paths), all_of(known)


def _pyproject(file: Path) -> str | None:
    content = _toml(file)
    poetry = _table(_table(content, "tool", dict), "poetry", dict)
    return _declared(_table(content, "project", dict).get("license")) or _declared(poetry.get("license"))


def _package(file: Path) -> str | None:
    try:
        content = json.loads(_read(file, _LONGEST))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    several = content.get("licenses")
    older = [_declared(each) for each in several] if isinstance(several, list) else []
    return _declared(content.get("license")) or (any_of(filter(None, older)) if any(older) else None)


_MANIFESTS = (
    ("pyproject.toml", _pyproject),
    ("package.json", _package),
    ("Cargo.toml", lambda file: _declared(_table(_toml(file), "package", dict).get("license"))),
)


def _declared(value: Any) -> str | None:
    """The field of a manifest, where it is an SPDX expression."""
    if isinstance(value, dict):
        value = value.get("text") or value.get("type")
    name = canonical(value) if isinstance(value, str) else UNKNOWN
    return name if is_spdx(name) else None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(file, _LONGEST))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _table(content: dict[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    return value if isinstance(value, kind) else kind()


def _strings(value: Any) -> Iterable[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _read(file: Path, most: int) -> str:
    """The beginning of a regular file; nothing where there is none."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as stream:
            data = stream.read(most)
            return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    except OSError:
        return ""
