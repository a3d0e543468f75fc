"""Patterns of files to leave out, in the syntax of `.gitignore`."""

from __future__ import annotations

import logging
import re

from artifacts.errors import InputError
from artifacts.paths import shown

log = logging.getLogger(__name__)

_STARS = 5
"""With many a pattern is tried in more ways than there is time for."""


class Excluded:
    """The files that some patterns name.

    Raises:
        InputError: a pattern is none.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        from pathspec import GitIgnoreSpec

        for pattern in patterns:
            if any(len(re.findall(r"\*+", part)) > _STARS for part in pattern.split("/")):
                raise _none(f"{shown(pattern)!r} has more than {_STARS} stars between two slashes")
        try:
            self._all = GitIgnoreSpec.from_lines(patterns)
            self._unused = {pattern: GitIgnoreSpec.from_lines([pattern.removeprefix("!")]) for pattern in patterns}
        except (ValueError, re.error) as error:
            raise _none(str(error)) from error
        self.count = 0
        """Files that were left out."""

    def has(self, path: str, *, counts: bool = True) -> bool:
        """Whether a file is to be left out, by its path below one of the source's."""
        for pattern in [pattern for pattern, spec in self._unused.items() if spec.match_file(path)]:
            del self._unused[pattern]
        found = self._all.match_file(path)
        self.count += found and counts
        return found

    def tell_of_unused(self) -> None:
        """Warn of the patterns that fit none of the files that were asked for."""
        for pattern in self._unused:
            log.warning(
                "the pattern %r of `exclude` fits no file of the source, or only what is left out anyway; patterns are"
                " those of .gitignore, relative to each of `paths`",
                pattern,
            )


def _none(problem: str) -> InputError:
    return InputError(
        f"a pattern cannot be used: {problem}",
        field="sampling.source.exclude",
        remedy="write it as in a .gitignore: `build/`, `*_test.py`",
    )
