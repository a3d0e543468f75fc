"""What a person is shown of a decision."""

from __future__ import annotations

from artifacts.escaping import quoted
from artifacts.presentation import Section, Table, Text
from artifacts.verdicts import GateDecision
from tasks.gate.config import ASKED


def sections(decision: GateDecision) -> list[Section]:
    """The decision, its reasons, and what each figure said."""
    rows = tuple(
        (one.title, ASKED[one.question], one.verdict, "yes" if one.decides else "no", one.finding, one.beside)
        for one in decision.judgements
    )
    caption = (
        "A figure that does not decide can only object, by having regressed. As simulated, a model that is worse by"
        " the margin passes a deciding figure in about 3 of 100 cases or fewer; where a few repositories carry the"
        " whole loss, in up to 6, and with eight repositories in up to 8."
    )
    reasons = "\n".join(f"- {quoted(reason)}" for reason in decision.reasons)
    table = Table(("", "asked whether it", "verdict", "decides", "finding", "beside it"), rows, caption)
    found = [Section("decision", "The gate", (Text(f"**{decision.ruling}**\n\n{reasons}"), table))]
    if decision.shipped:
        costs = tuple((of.form, one.title, one.verdict, one.finding) for of in decision.shipped for one in of.costs)
        said = (
            "The tuned model as such a file in llama.cpp against the tuned model as it was trained, on the same items."
            " Where the form is required, each must be non-inferior. The margin on held-out code is a share of what"
            " training gained."
        )
        table = Table(("form", "", "verdict", "trained → shipped"), costs, said)
        found.append(Section("shipped", "What the shipped forms cost", (table,)))
    return found
