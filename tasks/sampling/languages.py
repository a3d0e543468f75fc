"""The 30 languages of `codeparrot/github-code`, told by the file's extension or name.

Source: the table of extensions in that data set's card. Languages are spelled as there (`GO`, `FORTRAN`).
"""

from __future__ import annotations

from pathlib import PurePosixPath

_SUFFIXES = {
    "Assembly": ".asm",
    "Batchfile": ".bat .cmd",
    "C": ".c .h",
    "C#": ".cs",
    "C++": ".cpp .hpp .c++ .h++ .cc .hh .C .H",
    "CMake": ".cmake",
    "CSS": ".css",
    "Dockerfile": ".dockerfile",
    "FORTRAN": ".f90 .f .f03 .f08 .f77 .f95 .for .fpp",
    "GO": ".go",
    "HTML": ".html",
    "Haskell": ".hs",
    "Java": ".java",
    "JavaScript": ".js",
    "Julia": ".jl",
    "Lua": ".lua",
    "Makefile": "",
    "Markdown": ".md .markdown",
    "PHP": ".php .php3 .php4 .php5 .phps .phpt",
    "Perl": ".pl .pm .pod .perl",
    "PowerShell": ".ps1 .psd1 .psm1",
    "Python": ".py",
    "Ruby": ".rb",
    "Rust": ".rs",
    "SQL": ".sql",
    "Scala": ".scala",
    "Shell": ".sh .bash .command .zsh",
    "TeX": ".tex",
    "TypeScript": ".ts .tsx",
    "Visual Basic": ".vb",
}
_NAMES = {"Dockerfile": "Dockerfile", "Makefile": "Makefile"}
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_BY_FOLDED_NAME = {language.casefold(): language for language in _SUFFIXES}

LANGUAGES = tuple(sorted(_SUFFIXES))


def language_of(path: str) -> str | None:
    """The language of a file, from its path alone; None for a file that is no code of the 30 languages."""
    name = PurePosixPath(path).name
    suffix = PurePosixPath(path).suffix
    return _NAMES.get(name) or _BY_SUFFIX.get(suffix) or _BY_SUFFIX.get(suffix.lower())


def known(language: str) -> str | None:
    """The spelling used here for a language named in any case; None for one that is not among the 30."""
    return _BY_FOLDED_NAME.get(language.strip().casefold())
