"""What a run may use of the machine, and the job as preflight sees it: what decides its cost."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from artifacts import variables
from artifacts.configuration import NUMBER, Config, Real, Seconds, Whole

CAP_VARIABLE = "CODETUNE_GPU_MEMORY_GIB"
MOST_GIB = 100_000
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")


def seconds(value: Any) -> Any:
    """A time as people write it (`2h`, `1h30m`, `90s`) in seconds; anything else as it is.

    Raises:
        ValueError: a text that is no time.
    """
    if not isinstance(value, str):
        return value
    written = "".join(value.casefold().split()).replace("min", "m")
    if _TIME.fullmatch(written):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", written))
    try:
        return float(written)
    except ValueError:
        raise ValueError(f"{value!r:.40} is no time; write 90s, 45m, 2h or 1h30m") from None


class PreflightConfig(Config):
    """What the run may use of the machine."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: the first visible GPU, or the CPU when there is none."""
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Arithmetic of forward and backward pass. `auto`: fp16 for int8 weights; else bf16 on GPUs that have it (compute
    capability 8.0) and fp16 on others. A CPU always computes in fp32."""
    fp32_residual: bool | Literal["auto"] = "auto"
    """Keep the residual stream in fp32 where fp16 or bf16 is computed in: models made in bf16 may pass 65,504 there,
    where fp16 ends. It takes memory and a little time. `auto`: in fp16, for the models that are known to do so
    (Qwen2)."""
    gpu_memory_gib: Annotated[float, Field(gt=0, le=MOST_GIB), NUMBER] | None = Field(
        default_factory=lambda: variables.number(CAP_VARIABLE, most=MOST_GIB), validate_default=True
    )
    """What the run may take of the GPU, GiB, to leave room for others or to stand for a smaller GPU (a T4 gives
    14.56). Default: the environment variable CODETUNE_GPU_MEMORY_GIB, else the whole GPU."""
    headroom: Real = Field(0.04, ge=0, lt=1)
    """Share of that memory that the predicted peak must leave free."""
    budget: Annotated[Seconds, BeforeValidator(seconds)] | None = None
    """Time that all optimizer steps together may take on this machine, as in `2h`, `45m` or seconds. As many are
    trained as fit, by the backend's estimate, and no more than the recipe has. What comes before and after training
    (downloads, exports, answers) takes its own time."""
    cpu_max_parameters: Whole = Field(500_000_000, gt=0, le=10**12)
    """Largest model, in parameters, that is trained without a GPU: with 500M a step of 1,024 tokens takes about 12 s
    on 2 cores."""
