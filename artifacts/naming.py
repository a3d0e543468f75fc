"""What figures are called. The name of a figure on held-out code is its kind: `loss`, `line_exact_match`."""

from __future__ import annotations

PERPLEXITY = "perplexity"
RETENTION, SPECIFIC = "retention_", "specific_"
_PASS = "_pass"


def on_retention(kind: str) -> str:
    """The same figure on code from elsewhere."""
    return RETENTION + kind


def specific(kind: str) -> str:
    """How its change on held-out code differs from that on code from elsewhere."""
    return SPECIFIC + kind


def passing(suite: str) -> str:
    """The kind of a functional suite's figure."""
    return suite + _PASS


def of_suite(suite: str) -> str:
    """The name of a functional suite's figure."""
    return on_retention(passing(suite))


def is_pass(name: str) -> bool:
    """Whether a figure is a functional suite's; also of a pattern of names."""
    return name.endswith(_PASS)


def compared(name: str) -> tuple[str, ...]:
    """The figures on items that one is made of: a specific one of two."""
    kind = name.removeprefix(SPECIFIC)
    return (name,) if kind == name else (kind, on_retention(kind))


def repeats(name: str) -> bool:
    """Whether it says what another says: perplexity says what the loss says."""
    return name.endswith(PERPLEXITY)
