"""The forms of an export: every module of this folder has one, its `FORM`, or some of a kind, its `FORMS`. The adapter
comes first, and is always written: evaluation takes it. What others are made from comes before them."""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from tasks.exporting.contract import Export


def _of(module: ModuleType) -> tuple[Export, ...]:
    return module.FORMS if hasattr(module, "FORMS") else (module.FORM,)


FORMS: tuple[Export, ...] = tuple(
    sorted(
        (form for module in iter_modules(__path__) for form in _of(import_module(f"{__name__}.{module.name}"))),
        key=lambda form: (form.name != "adapter", len(form.needs), form.name),
    )
)
NAMES = tuple(form.name for form in FORMS)


def get(name: str) -> Export:
    """The form of this name."""
    return FORMS[NAMES.index(name)]


def with_needs(names: Iterable[str]) -> tuple[Export, ...]:
    """Forms of these names and those that they are made from, in the order in which they are written."""
    wanted = {*names}
    return tuple(form for form in FORMS if form.name in wanted.union(*(get(name).needs for name in wanted)))
