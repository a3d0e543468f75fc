"""What sampling can be told: the source, what is kept of it, how much, and how it is divided."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from artifacts.configuration import (
    NUMBER,
    Config,
    GivenFile,
    GivenPath,
    Items,
    Name,
    Real,
    Seed,
    Share,
    Size,
    Unkeyed,
    Whole,
)
from artifacts.units import HeldOutBy
from tasks.sampling.languages import LANGUAGES, known

PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unlicense")
GITHUB_CODE = "codeparrot/github-code"
STANDARD_LIBRARY = "stdlib"
"""Stands for the folder of the running interpreter's standard library among the paths of a local source."""
PACKAGE = "package:"
"""Begins the name of an installed package among the paths of a local source."""


def _known_language(name: str) -> str:
    language = known(name)
    if language is None:
        near = difflib.get_close_matches(name.title(), LANGUAGES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(LANGUAGES)}"
        raise ValueError(f"{name!r} is not a language known here; {hint}")
    return language


def _licence(name: str) -> str:
    from tasks.sampling.licence_ids import UNKNOWN, canonical  # reads a list of 700 licences

    found = canonical(name)
    if found == UNKNOWN and name.strip().casefold() != UNKNOWN:
        raise ValueError(f"{name!r:.80} is no licence: write its SPDX id, as in MIT or GPL-2.0-or-later, or `unknown`")
    return found


def _one_or_more(value: Any) -> Any:
    """A single path may be written without a list around it."""
    return (value,) if isinstance(value, (str, Path)) else value


class Columns(Config):
    """Which columns of a table hold what; None for what the table does not have."""

    content: str = "content"
    """The text of a file."""
    repo: str | None = None
    """The repository it is from. Without one every row counts as a repository of its own."""
    path: str | None = None
    """The path within the repository; tells the language where there is no such column."""
    license: str | None = None
    """The licence (an SPDX id or expression in any case, or its name), or a list of licences that all hold. Without one
    the allow-list of licences does not apply."""
    language: str | None = None
    """The language's name."""
    size: str | None = None
    """Length of the content in bytes; spares reading what is too large anyway."""


class LocalSource(Config):
    """Code on this machine: your own, or anything that lies in folders. Licences are recorded but not filtered."""

    kind: Literal["local"] = "local"
    """Your own files."""
    paths: tuple[GivenPath, ...] = Unkeyed(..., min_length=1)
    """Folders, git repositories (see `tracked_only`) and single files; `stdlib` is the running interpreter's
    standard library, `package:NAME` an installed package by the name that it is imported by, and
    `package:NAME/FOLDER` a folder in it. Contents, not places, decide whether a result can be reused."""
    tracked_only: bool = True
    """In a git working tree only tracked files count, and one that git cannot read is refused. Set to false, git is not
    asked: every folder is a plain one, and all its files count, ignored ones too."""
    repositories: Literal["auto", "git", "path", "top-level", "folder"] = "auto"
    """What counts as one repository, which the split never divides. `git`: a git repository, with all checkouts of it;
    `path`: each of `paths`; `top-level`: each folder or module directly below one of `paths`; `folder`: each folder
    with files. Two that hold the same file of one git repository, as two checkouts of it do, count as one. `auto` takes
    the first of these that gives at least two, of which the largest holds at most half the files."""
    exclude: tuple[str, ...] = ()
    """Patterns of what to leave out, as in a `.gitignore`, relative to each of `paths`: `test/`, `generated/*.py`,
    `!generated/kept.py`. Version control, caches, environments, builds and installed packages are always left out of
    folders that are no git repositories."""
    license: str | None = None
    """Licence of all of it (SPDX); None to recognize it from `SPDX-License-Identifier` in files, from licence texts and
    manifests, `unknown` where there is nothing."""

    _spell_license = field_validator("license")(lambda name: name and _licence(name))
    _wrap_path = field_validator("paths", mode="before")(_one_or_more)


class TableSource(Config):
    """Parquet or JSON-lines files on this machine, a row per source file."""

    kind: Literal["table"] = "table"
    """Parquet or JSONL files."""
    paths: tuple[GivenFile, ...] = Unkeyed(..., min_length=1)
    """Files ending in `.parquet`, `.jsonl` or `.jsonl.gz`."""
    columns: Columns = Columns()
    """Where the table keeps what."""
    language: str | None = None
    """Language of rows for which neither a column nor a path tells it."""

    _wrap_path = field_validator("paths", mode="before")(_one_or_more)
    _check_language = field_validator("language")(lambda name: name and _known_language(name))


class HubSource(Config):
    """A data set on the hub that is stored as Parquet or JSON-lines files."""

    kind: Literal["hub"] = "hub"
    """A data set of the hub."""
    dataset: Name
    """`owner/name`."""
    revision: Name | None = None
    """Branch, tag or commit; resolved to a commit when the run starts."""
    files: Name = "*.parquet"
    """Glob pattern of the files to draw from; `*` matches slashes too."""
    columns: Columns = Columns()
    """Where the rows keep what."""
    language: str | None = None
    """Language of rows for which neither a column nor a path tells it."""
    shards: Whole = Field(3, ge=1, le=100_000)
    """Files over which the sample is spread; more are opened only when these do not give enough."""
    attempts: Whole = Unkeyed(6, ge=1, le=1000)
    """Tries of a request in a row without a byte of progress before the hub is given up."""

    _check_language = field_validator("language")(lambda name: name and _known_language(name))


class GithubCodeSource(Config):
    """`codeparrot/github-code`: 115M files from GitHub in 30 languages, read from its raw Parquet shards."""

    kind: Literal["github-code"] = "github-code"
    """The hub's `codeparrot/github-code`."""
    revision: Name = "b5661e6b17396364b2bcf8e68977b0d28e1ebd19"
    """Commit of the data set."""
    shards: Whole = Field(3, ge=1, le=100_000)
    """Shards over which the sample is spread; more are opened only when these do not give enough."""
    attempts: Whole = Unkeyed(6, ge=1, le=1000)
    """Tries of a request in a row without a byte of progress before the hub is given up."""

    def as_hub(self) -> HubSource:
        """The same source in general terms. The loading script's `language` is not among the raw columns."""
        columns = Columns(content="content", repo="repo_name", path="path", license="license", size="size")
        return HubSource(
            dataset=GITHUB_CODE,
            revision=self.revision,
            files="data/train-*.parquet",
            columns=columns,
            shards=self.shards,
            attempts=self.attempts,
        )


Source = Annotated[LocalSource | TableSource | HubSource | GithubCodeSource, Field(discriminator="kind")]


class QualityFilters(Config):
    """What a file must be like, after BigCode and StarCoder2 (arXiv:2402.19173, 2.2); None turns a filter off."""

    max_bytes: Size | None = 1_048_576
    """Longest file, bytes. Bounds memory too: longer files are not even read where their size is known."""
    max_line_length: Size | None = 1000
    """Longest line, characters."""
    max_mean_line_length: Annotated[float, Field(ge=1, le=1 << 40), NUMBER] | None = 100.0
    """Mean length of a line, characters."""
    min_alphanumeric: Share | None = 0.25
    """Least share of letters and digits among all characters."""
    min_alphabetic: Share | None = 0.25
    """Least share of letters among all characters."""
    drop_generated: bool = True
    """Drop files whose first five lines say that they were generated."""
    max_encoded_run: Annotated[int, Field(ge=64, le=1 << 40), NUMBER] | None = 1024
    """Longest stretch of base64, hexadecimal or escaped data, characters."""
    max_encoded_share: Share | None = 0.5
    """Largest share of such data in the file."""


Similarity = Annotated[float, Field(ge=0.5, le=1), NUMBER]


class ChoiceConfig(Config):
    """Which files of source code are taken."""

    source: Source = GithubCodeSource()
    """Where the code comes from."""
    files: Items = Field(2000, ge=2)
    """How many files to take, both sides of the split together; a smaller source gives what it has."""
    languages: tuple[str, ...] = Field(("Python",), min_length=1)
    """Languages to keep, of the 30 that github-code has."""
    licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None = PERMISSIVE
    """Licences to keep (SPDX), for sources that state one per file; None keeps all. Of `A OR B` one must be here, of
    `A AND B` both; `unknown` is a licence of its own. Local sources are never filtered."""
    quality: QualityFilters = QualityFilters()
    """What a file must be like."""
    secrets: Literal["keep", "replace", "drop"] = "keep"
    """What becomes of passwords, tokens and keys in files. `replace`: a placeholder stands for each, and a file that is
    little else is dropped. `drop`: files with any are dropped. They are counted by kind, and shown nowhere."""
    near_duplicates: Similarity | None = None
    """Similarity from which on two files are near-duplicates, of which the first of the seeded order stays, on either
    side of the split: Jaccard's, of their different runs of five tokens; BigCode drops from 0.7. None looks for none.
    Files of fewer than 20 tokens are not compared."""
    held_out: Real = Field(0.1, ge=0.001, le=0.5)
    """Share of the files that is held out, by whole repositories."""
    seed: Seed = 0
    """Decides which files are taken and which repositories are held out."""

    @field_validator("languages")
    @classmethod
    def _spell(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({_known_language(name) for name in names}))

    @field_validator("licenses")
    @classmethod
    def _fold(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(sorted(set(map(_licence, names))))


class ReplayConfig(Config):
    """General code that is learned from beside one's own, so that less is forgotten. Quality, licences, secrets,
    near-duplicates and seed are those of `sampling`."""

    share: Real = Field(0.05, ge=0.001, le=0.5)
    """Of the training sequences."""
    source: Source
    """Where it comes from. What is of a repository that is learned from or held out is left out, and so is what nearly
    equals or holds one of its files. In turn the retention set leaves out the repositories of the replay."""
    languages: tuple[str, ...] = Field(("Python",), min_length=1)
    """Languages to keep, of the 30 that github-code has."""
    files: Items = Field(200, ge=1)
    """How many files to choose from; as many are used as make the share."""

    _spell = field_validator("languages")(lambda names: tuple(sorted({_known_language(name) for name in names})))

    def choice(self, sampling: ChoiceConfig) -> ChoiceConfig:
        """The settings by which its files are chosen."""
        return sampling.model_copy(update={name: getattr(self, name) for name in ("source", "languages", "files")})


class SamplingConfig(ChoiceConfig):
    """Which files of source code are learned from, and which are held out for the evaluation."""

    held_out_by: HeldOutBy | Literal["auto"] = "repository"
    """What is held out. `repository`: whole repositories. For a `local` source also `folder`: whole folders of the
    same repositories; `release`: of folders such as `name-1.2` and `name-1.3` an older one is learned from, and the
    lines that the newest added are asked for; `commit`: in git repositories files are learned from as they were before
    the newest commits (`held_out` is their share), and the lines that those added are asked for, drawn for an interval
    by commit; `commit-date`: the same lines, drawn by file. `auto` takes releases where there are some, else the first
    of repository, commit, commit date and folder that gives enough for an interval. All but `repository` end the run
    where there is too little for one."""

    replay: ReplayConfig | None = None
    """General code that is learned from as well; None for none."""

    @model_validator(mode="after")
    def _has_history(self) -> SamplingConfig:
        if self.held_out_by not in ("repository", "auto") and not isinstance(self.source, LocalSource):
            raise ValueError(f"held_out_by: {self.held_out_by} needs a source of kind local; set repository or auto")
        return self

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes; without the way to hold out where it is the usual one, and without replay
        where there is none."""
        usual = {"held_out_by": "repository", "replay": None}
        return {name: value for name, value in super().keyed().items() if name not in usual or value != usual[name]}


class RetentionConfig(ChoiceConfig):
    """Code from outside what is trained on, which shows what was forgotten. Both sides of the split are used."""

    files: Items = Field(200, ge=2)
    """How many files to take; a smaller source gives what it has."""
    languages: tuple[str, ...] = Field(("C", "C++", "Go", "Java", "JavaScript"), min_length=1, validate_default=True)
    """Languages to keep, of the 30 that github-code has."""
