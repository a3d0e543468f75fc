"""Functional suites: problems with tests, as prompts.

A problem is put to the models as its prompt stands in the file, unstripped. Where the model's own chat template is
Llama 2's `[INST]`, it is put once more as an instruction, as a suite of its own with `-instruct` after its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts import digest
from artifacts.errors import InputError
from artifacts.schema import FunctionalSuite
from tasks import functional
from tasks.families.chat import ChatTemplate
from tasks.families.marks import FimTokens
from tasks.functional import Problem, Suite
from tasks.models.healing import healed
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, encode
from tasks.prompts.config import PromptsConfig
from tasks.prompts.gaps import Item

FIELD = "prompts.functional"
_INSTRUCT = "-instruct"
_TAKEN = ("line", "fim", "block", "context")
"""Names of the suites that need no tests."""


@dataclass(frozen=True)
class Asked:
    """One suite as it is put to the models."""

    suite: Suite
    items: Sequence[Item]
    """One for each problem, in their order."""
    instructed: bool = False

    @property
    def record(self) -> FunctionalSuite:
        return FunctionalSuite(
            name=self.suite.name,
            fingerprint=self.suite.fingerprint,
            problems=len(self.suite.problems),
            instructed=self.instructed,
        )


def suites(names: Sequence[str]) -> list[Suite]:
    """The functional suites of these names or files.

    Raises:
        InputError: there is no such suite, a file is not in order, or two have one name.
        TransientError: the hub does not answer.
    """
    found = [functional.suite(name) for name in names]
    called = Counter([*(suite.name for suite in found), *(suite.name + _INSTRUCT for suite in found), *_TAKEN])
    for suite in found:
        if called[suite.name] > 1:
            raise InputError(
                f"another suite is called {suite.name!r} already",
                field=FIELD,
                remedy="rename the file, or leave it out",
            )
    return found


def suites_fingerprint(config: PromptsConfig) -> str:
    """Over the problems of all suites, and what they are called; nothing for none. Raises as `suites`."""
    found = suites(config.functional)
    return digest.of_json([[suite.name, suite.fingerprint] for suite in found]) if found else ""


def ask(
    found: Sequence[Suite],
    tokenizer: CodeTokenizer,
    config: PromptsConfig,
    *,
    context: int | None,
    template: ChatTemplate | None,
) -> tuple[list[Asked], list[str]]:
    """The suites as prompts, and why some are not asked.

    Args:
        context: the model's, in tokens; None for no bound.
        template: the model's chat template; None where it takes no instructions.

    Raises:
        InputError: a prompt and its answer do not fit the context, or the vocabulary cannot write a prompt.
    """
    asked, notes = [], []
    for suite in found:
        if not suite.problems:
            notes.append(f"{suite.name} was not measured: no problem of it is left.")
            continue
        try:
            asked.append(_ask(suite, tokenizer, config))
        except _Unasked as error:
            notes.append(f"{suite.name} was not measured: {error}.")
            continue
        if template and all(problem.form != "infilling" for problem in suite.problems):
            asked.append(_ask(suite, tokenizer, config, template))
    for one in asked:
        _check_context(one, context)
    return asked, notes


class _Unasked(Exception):  # noqa: N818 - a finding about a vocabulary
    """The model cannot be asked a suite."""


def _ask(suite: Suite, tokenizer: CodeTokenizer, config: PromptsConfig, template: ChatTemplate | None = None) -> Asked:
    if template:
        suite = Suite(name=suite.name + _INSTRUCT, problems=suite.problems)
    items = []
    for problem in suite.problems:
        try:
            ids, start = _ids(problem, tokenizer, template)
        except Unrepresentable as error:
            raise InputError(
                f"{problem.task_id} of {suite.name} cannot be written with the model's vocabulary: {error}",
                field=FIELD,
                remedy="leave the suite out",
            ) from error
        shown = functional.instruct_prompt(problem) if template else problem.prompt
        items.append(
            Item(
                suite=suite.name,
                repo=problem.parent,
                path=problem.task_id,
                language="Python",
                line=0,
                prompt_ids=tuple(ids),
                prompt=shown,
                suffix=problem.suffix or "",
                truth=problem.canonical_solution,
                new_tokens=config.functional_tokens,
                domain="retention",
                start=start,
            )
        )
    return Asked(suite, items, template is not None)


def _ids(problem: Problem, tokenizer: CodeTokenizer, template: ChatTemplate | None) -> tuple[list[int], bytes]:
    """The prompt, and what the answer has to begin with."""
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    if template:
        return template.ask(tokenizer, functional.instruct_prompt(problem)), b""
    before = encode(tokenizer, problem.prompt)
    if problem.suffix is None:
        return healed(tokenizer, [*start, *before])
    fim = FimTokens.find(tokenizer)
    if fim is None:
        raise _Unasked("the vocabulary has no fill-in-the-middle tokens")
    return fim.prompt(tokenizer.bos, before, encode(tokenizer, problem.suffix, continues=True)), b""


def _check_context(asked: Asked, context: int | None) -> None:
    longest = max(asked.items, key=lambda item: len(item.prompt_ids))
    needed = len(longest.prompt_ids) + longest.new_tokens
    if context is not None and needed > context:
        room = context - len(longest.prompt_ids)
        raise InputError(
            f"prompt and answer of {longest.path} take up to {needed} tokens, and the model's context has {context}",
            field="prompts.functional_tokens",
            remedy=f"set prompts.functional_tokens to {room} or less" if room >= 16 else "leave the suite out",
        )
