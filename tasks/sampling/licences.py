"""The licence of a folder, recognized from the words of its licence file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_NAMES = re.compile(r"(licen[cs]e|copying|unlicense)([.-].*)?", re.IGNORECASE)

# Each needs all its phrases; the first that fits counts, so the more special stand before the more general.
_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("psf-2.0", ("python software foundation license",)),
    ("apache-2.0", ("apache license", "version 2.0")),
    ("agpl-3.0", ("gnu affero general public license", "version 3")),
    ("lgpl-3.0", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("lgpl-2.1", ("gnu lesser general public license", "version 2.1")),
    ("gpl-3.0", ("gnu general public license", "version 3, 29 june 2007")),
    ("gpl-2.0", ("gnu general public license", "version 2, june 1991")),
    ("mpl-2.0", ("mozilla public license", "2.0")),
    ("epl-1.0", ("eclipse public license", "1.0")),
    ("unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("cc0-1.0", ("cc0 1.0 universal",)),
    ("artistic-2.0", ("the artistic license 2.0",)),
    ("bsd-3-clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("bsd-2-clause", ("redistribution and use in source and binary forms",)),
    ("isc", ("permission to use, copy, modify, and/or distribute this software for any purpose",)),
    ("isc", ("permission to use, copy, modify, and distribute this software for any purpose",)),
    ("mit", ("permission is hereby granted, free of charge, to any person obtaining a copy",)),
)


def licence_of(folder: Path, root: Path) -> str:
    """The licence that holds in a folder: from its own licence file or that of the nearest folder up to `root`."""
    here = _licence_in(folder)
    if here or folder == root or root not in folder.parents:
        return here or "unknown"
    return licence_of(folder.parent, root)


@cache
def _licence_in(folder: Path) -> str | None:
    try:
        files = sorted(path for path in folder.iterdir() if _NAMES.fullmatch(path.name) and path.is_file())
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    except OSError:
        return None
    return next(filter(None, map(recognize, texts)), None)


def recognize(text: str) -> str | None:
    """The SPDX name (lower case) of a licence text; None when it is none of those known here."""
    words = " ".join(text.lower().split())
    return next((name for name, phrases in _PHRASES if all(phrase in words for phrase in phrases)), None)
