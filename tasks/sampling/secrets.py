"""Secrets in files that are learned from: which there are, and the file without them.

`artifacts.credentials` (with the patterns of detect-secrets) finds them for logs, where a word too many may be hidden.
Code says `password = read()` and `"token": "string"` all the time, so here what is known by its place alone must also
look like no word: letters with digits, signs or capitals among them. A password that is an ordinary word stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from artifacts.credentials import Found, find_places, find_tokens, is_no_word

PLACEHOLDER = "X" * 8
"""What people write in place of a key: a word, a name and part of a text in every language."""
_MOSTLY = 0.5
"""A file of which secrets are this share, white space left out, is one."""
_FEWEST_QUOTED, _FEWEST = 6, 8
"""Characters of a secret known by its place: what is given as a text, and what stands by itself."""
_GIVEN = re.compile(r"[:=>(]\s*[A-Za-z]{0,2}\\?[\"'`]\Z")
"""Ends before a text that something is set to."""
_LISTED = re.compile(r",\s*[A-Za-z]{0,2}[\"'`]\Z")
"""Ends before a text behind another one: two names as often as a name and its value."""
_RUN = re.compile(r"[^\s\\\"'`,;(){}\[\]<>]+")
"""What may be replaced and leaves strings, brackets and lines as they are."""
_KEY_RUN = re.compile(r"(?:(?<=\\[nr])|(?<![A-Za-z0-9+/=\\]))[A-Za-z0-9+/=]+")
"""The same between the first and the last line of a private key, whose line ends may be written `\\n`."""


class Cleaned(NamedTuple):
    """A file without its secrets."""

    text: str
    kinds: tuple[str, ...]
    """What was replaced, in the order of the file."""
    mostly: bool
    """Whether hardly anything else was there."""


def cleaned(text: str) -> Cleaned:
    """The text with a placeholder for every secret. Strings, brackets and lines stay, so it can be parsed as before."""
    pieces, kinds, hidden, end = [], [], 0, 0
    for found in _apart(text):
        secret = text[found.start : found.end]
        if found.kind == "private key":
            _, begin, rest = secret.split("-----", 2)
            body, *end_line = rest.partition("-----")
            replaced = "".join(["-----", begin, "-----", _KEY_RUN.sub(PLACEHOLDER, body), *end_line])
        else:
            replaced = _RUN.sub(PLACEHOLDER, secret)
        if replaced != secret:  # the first line of a private key is none
            pieces += [text[end : found.start], replaced]
            kinds.append(found.kind)
            hidden += len(re.sub(r"\s", "", secret))
            end = found.end
    size = len(re.sub(r"\s", "", text))
    return Cleaned("".join([*pieces, text[end:]]), tuple(kinds), hidden > _MOSTLY * size)


def _apart(text: str) -> Iterator[Found]:
    """The secrets one after the other: of those that overlap the first."""
    found = [*find_tokens(text), *(one for one in find_places(text) if _is_secret(text, one))]
    end = 0
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if one.start >= end:
            yield one
            end = one.end


def _is_secret(text: str, found: Found) -> bool:
    """Whether what is known by its place alone is a secret in code."""
    value = text[found.start : found.end].rpartition(":")[2]  # of an address the password
    before = max(0, found.start - 20), found.start
    given = _GIVEN.search(text, *before)
    if re.search(r"[\s()\[\]]", value) or _LISTED.search(text, *before) or not is_no_word(value):
        return False
    # what stands in no quotes and has underscores is another name
    return len(value) >= _FEWEST_QUOTED if given else len(value) >= _FEWEST and not re.fullmatch(r"\w*_\w*", value)
