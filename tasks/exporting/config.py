"""The settings of the stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from artifacts.configuration import NUMBER, Config, Real, Tokens
from artifacts.errors import InputError
from artifacts.schema import Quantization


def _known(name: str) -> str:
    from tasks.exporting.forms import NAMES

    if name not in NAMES[1:]:
        raise ValueError(f"there is no form of that name beside the adapter; there are: {', '.join(NAMES[1:])}")
    return name


FormName = Annotated[str, AfterValidator(_known)]


def _expanded(names: Any) -> Any:
    """`gguf` is short for the types that most people want."""
    if not isinstance(names, list | tuple):
        return names
    return [one for name in names for one in (GGUF if name == "gguf" else (name,))]


GGUF = ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m")


class ExportingConfig(Config):
    """In which forms the trained model is handed over, and how closely they must agree with it."""

    forms: Annotated[tuple[FormName, ...], BeforeValidator(_expanded)] = ("merged",)
    """What is written beside the adapter: `merged`, the whole model in fp16; `gguf-q4_k_m` and the like, the whole
    model as a GGUF file of that type; `adapter-gguf`, the adapter as one. `gguf` stands for `gguf-f16`, `gguf-q8_0` and
    `gguf-q4_k_m`. `[]`: the adapter alone."""
    quantization: Quantization = "int8"
    """What the base weights were quantized to in training: the adapter is compared on the same."""
    adapter_scale: Annotated[float, Field(ge=0.1, le=1), NUMBER] | Literal["auto"] = 1.0
    """What the adapter's effect is multiplied by, in every form. `auto`: from 0.6 to 1, the least that gives up no more
    than a twentieth of what the loss on validation text gained (`training.validation`)."""
    max_shard_gb: Real = Field(2.0, ge=1e-6, le=1e6)
    """Size above which the merged weights go to another file, 10⁹ bytes. A larger single tensor has its own file."""
    positions: Tokens = Field(512, ge=1)
    """Token positions of held-out text at which logits are compared."""
    adapter_bound: Real = Field(1e-4, ge=0, le=1000)
    """How far a logit of the reloaded adapter may be from the trained model's, on the same quantized base."""
    merged_tolerance: Real = Field(0.004, ge=0, le=1)
    """How far a logit of the merged model may be from that of unquantized base and adapter, as a share of the largest
    logit; on a GPU five times as far. Rounding a weight to fp16 once changes it by up to 0.0005 of its value, and
    errors add up over the layers."""
    gguf_tolerance: Real = Field(0.01, ge=0, le=1)
    """The same for a GGUF file of 16 bits in llama.cpp, which also rounds what it multiplies the weights with. On a GPU
    the tolerance of the merged model there is added, since the trained model computes in fp16. A file of fewer bits is
    held to a bound that only a damaged one exceeds: what it costs is measured, not bounded."""

    def keyed(self) -> dict[str, Any]:
        """The fields that decide the bytes; the adapter's weight where it is not as trained."""
        values = super().keyed()
        return {name: value for name, value in values.items() if (name, value) != ("adapter_scale", 1.0)}

    def check(self, measured: Iterable[str] = ()) -> None:
        """What would be missed after the training.

        Args:
            measured: the forms of which the evaluation will be, beside the model as it was trained.

        Raises:
            InputError: what makes a form is not installed, or a form that is measured is not made.
        """
        from tasks.exporting.forms import with_needs

        if missing := [name for name in measured if name not in self.forms]:
            raise InputError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} to be measured, and not exported",
                field="generation.forms",
                remedy=f"set exporting.forms=[{', '.join((*self.forms, *missing))}]",
            )
        for form in with_needs(self.forms):
            form.check_ready()
