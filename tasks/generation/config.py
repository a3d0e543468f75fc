"""How both models answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from artifacts.configuration import Batch, Config, Real, Threads
from artifacts.schema import Quantization


def _known(name: str) -> str:
    from tasks.gguf.library import PREFIX, TYPES, type_of

    if not name.startswith(PREFIX) or type_of(name) not in TYPES:
        names = ", ".join(PREFIX + kind for kind in TYPES)
        raise ValueError(f"there is no form of that name with the whole model as a GGUF file; there are {names}")
    return name


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError("a form is named twice")
    return names


class GenerationConfig(Config):
    """How base and tuned answer. What they are asked is set in `prompts`, how it is judged in `evaluation`."""

    quantization: Quantization = "int8"
    """What both models' base weights are quantized to; as in training, unless set otherwise."""
    forms: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], AfterValidator(_different)] = ()
    """Forms of the export that are shipped, `gguf-q4_k_m` and the like, to be measured as well: base and tuned both as
    such a file, in llama.cpp. The gate then asks by default that the tuned model is as good in each as it was trained
    (`gate.requires`). They must be among `exporting.forms`."""
    repeated: Real = Field(1.0, gt=0, le=1)
    """Share of chunks and prompts, of each suite evenly from first to last, that the base model is put through a second
    time: the noise floor."""
    batch_size: Batch = 32
    """Sequences computed at once. Fewer need less memory; the last bits of the results depend on it."""
    cpu_threads: Threads = 2
    """Threads of a run on the CPU; part of what decides the bits there, as in training."""

    @property
    def form(self) -> str | None:
        """What the stage measures, one form at a time; None: the model as it was trained."""
        return self.forms[0] if self.forms else None

    @property
    def trained(self) -> GenerationConfig:
        """The same for the model as it was trained."""
        return self.model_copy(update={"forms": ()})

    def of(self, form: str) -> GenerationConfig:
        """The same for one form."""
        return self.model_copy(update={"forms": (form,)})

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes of one form's measurement: which others there are does not."""
        values = super().keyed()
        del values["forms"]
        return {**values, "form": self.form}
