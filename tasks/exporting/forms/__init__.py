"""The forms of an export, one module each. The adapter comes first, and is always written: evaluation takes it."""

from tasks.exporting.contract import Export
from tasks.exporting.forms.adapter import AdapterExport
from tasks.exporting.forms.merged import MergedExport

FORMS: tuple[Export, ...] = (AdapterExport(), MergedExport())
NAMES = tuple(form.name for form in FORMS)


def get(name: str) -> Export:
    """The form of this name."""
    return FORMS[NAMES.index(name)]
