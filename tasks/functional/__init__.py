"""Functional suites: problems whose solutions are run against tests that they cannot see.

problems    a problem, a suite, the rules by which completions end, the instruct form
reading     suite files in the forms that their authors publish
published   suites by name, from the hub
comparing   tests by comparing with a reference solution
oracles     when an answer counts as right there
inputs      arguments that JSON cannot write
rows        the rows of a file
scoring     completions → verdicts → pass@k
soundness   problems that say nothing of a model
"""

from tasks.functional.problems import (
    Problem,
    Suite,
    answer_ended,
    completion_of_answer,
    ended,
    instruct_prompt,
    read_problems,
    stop,
    write_problems,
)
from tasks.functional.published import PUBLISHED, suite
from tasks.functional.reading import read_suite
from tasks.functional.scoring import Scores, Solution, check, check_tries, pass_at_k, read_completions, score
from tasks.functional.soundness import in_words, unsound

__all__ = [
    "PUBLISHED",
    "Problem",
    "Scores",
    "Solution",
    "Suite",
    "answer_ended",
    "check",
    "check_tries",
    "completion_of_answer",
    "ended",
    "in_words",
    "instruct_prompt",
    "pass_at_k",
    "read_completions",
    "read_problems",
    "read_suite",
    "score",
    "stop",
    "suite",
    "unsound",
    "write_problems",
]
