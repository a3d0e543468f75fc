"""The forms of an export: every module of this folder has one, its `FORM`. The adapter comes first, and is always
written: evaluation takes it."""

from importlib import import_module
from pkgutil import iter_modules

from tasks.exporting.contract import Export

FORMS: tuple[Export, ...] = tuple(
    sorted(
        (import_module(f"{__name__}.{module.name}").FORM for module in iter_modules(__path__)),
        key=lambda form: (form.name != "adapter", form.name),
    )
)
NAMES = tuple(form.name for form in FORMS)


def get(name: str) -> Export:
    """The form of this name."""
    return FORMS[NAMES.index(name)]
