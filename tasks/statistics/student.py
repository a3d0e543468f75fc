"""Quantiles of Student's t distribution (scipy is no dependency)."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, to four digits and better.

    With t = √ν·tan θ the density becomes cos(θ)^(ν−1), which is integrated on a grid.
    """
    import numpy as np

    angles = np.linspace(-np.pi / 2, np.pi / 2, 50_001)
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(probability, mass / mass[-1], angles)
    return float(math.sqrt(freedom) * np.tan(angle))
