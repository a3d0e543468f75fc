"""Which repository a file of this machine is of: the ways to tell repositories apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from tasks.sampling.local_files import LocalFile, short_names
from tasks.sampling.split import Groups

log = logging.getLogger(__name__)

_MANIFESTS = ("pyproject.toml", "setup.py", "PKG-INFO", "package.json", "Cargo.toml", "go.mod", "pom.xml")
"""What a folder has that is a project; what lies in it are its parts."""


def checkouts_of(items: list[LocalFile]) -> dict[Path, Path]:
    """The first checkout of its repository, for each git working tree."""
    found = {item.found.checkout.top: item.found.checkout for item in items if item.found.checkout}
    same = Groups()
    for top in sorted(found):
        for key in found[top].identity:
            same.join(str(top), key)
    first: dict[str, Path] = {}
    checkouts = {top: first.setdefault(same.of(str(top)), top) for top in sorted(found)}
    for top, other in checkouts.items():
        if top != other:
            log.info("%s and %s are checkouts of one repository and count as one", other, top)
    return checkouts


def rules_of(items: list[LocalFile], checkouts: Mapping[Path, Path]) -> dict[str, Callable[[LocalFile], str]]:
    """The ways to tell repositories apart, the preferred first."""
    names = short_names(checkouts.values())

    def git(item: LocalFile) -> str:
        return names[checkouts[item.found.top]] if item.found.top else item.root.name

    def top_level(item: LocalFile) -> str:
        # A module and a package of one name are the same module.
        parts = item.below.parts
        return f"{item.root.name}/{parts[0] if len(parts) > 1 else item.below.stem}"

    def folder(item: LocalFile) -> str:
        return (PurePosixPath(item.root.name) / item.below.parent).as_posix()

    return {"git": git, "path": lambda item: item.root.name, "top-level": top_level, "folder": folder}


def are_repositories(rule: str, repository: Callable[[LocalFile], str], items: list[LocalFile]) -> bool:
    """Whether the parts that a rule makes are repositories, as far as can be told: most are no single files, and they
    are no folders of one project or package. By path alone parts are told apart that are of one git repository."""
    if rule == "top-level":
        roots = {item.root.path for item in items}
        of_one = [folder / name for root in roots for folder in (root, root.parent) for name in _MANIFESTS]
        of_one += [root / "__init__.py" for root in roots]
        if any(item.found.top for item in items) or any(file.is_file() for file in of_one):
            return False
        files = {repository(item) for item in items if len(item.below.parts) == 1}
    else:
        files = {repository(item) for item in items if not item.found.top and item.found.path == item.root.path}
    return rule in ("git", "top-level") and 2 * len(files) < len({repository(item) for item in items})


def joined(
    rule: Callable[[LocalFile], str], items: list[LocalFile], checkouts: Mapping[Path, Path]
) -> Callable[[LocalFile], str]:
    """A rule that keeps the same file of one repository together, in whichever checkouts of it."""
    several = {first for top, first in checkouts.items() if top != first}
    if not several:
        return rule
    same, names = Groups(), dict[str, str]()
    for item in items:
        top = item.found.top
        if top and checkouts[top] in several:
            same.join(rule(item), f"{checkouts[top]}\0{item.found.path.relative_to(top)}")
    for name in sorted(set(map(rule, items))):
        names.setdefault(same.of(name), name)
    return lambda item: names[same.of(rule(item))]
