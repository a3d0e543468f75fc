"""The difference of two differences that were measured on different items: is what changed here more than elsewhere?

The two samples are independent, so their intervals say all that is needed: the distances from an estimate to its ends
are what its error is made of, and errors of independent estimates add as squares (MOVER: Zou & Donner 2008,
“Construction of confidence limits about effect measures”, Statistics in Medicine 27). What the intervals know of
clusters, ties and rare differences is kept, and nothing is drawn again. Drawing halves of both samples together covers
as well with twelve clusters or more a side, and less well where one side has few; `bench/statistics.py` compares them.

A cluster of which both samples have something, as a repository of two languages, makes the interval wider than it need
be where its changes go the same way, which they do when all that is tuned changes alike.
"""

from __future__ import annotations

import math

from tasks.statistics.paired import Difference


def contrast(here: Difference, elsewhere: Difference) -> Difference:
    """The difference `here` − `elsewhere`, with `elsewhere` as its base. Where either has no interval, it has none.

    Args:
        here, elsewhere: of different items, in clusters of which few or none are the same.
    """
    estimate = here.estimate - elsewhere.estimate
    low = high = detectable = None
    if here.low is not None and here.high is not None and elsewhere.low is not None and elsewhere.high is not None:
        low = estimate - math.hypot(here.estimate - here.low, elsewhere.high - elsewhere.estimate)
        high = estimate + math.hypot(here.high - here.estimate, elsewhere.estimate - elsewhere.low)
        detectable = math.hypot(here.minimum_detectable_effect or 0.0, elsewhere.minimum_detectable_effect or 0.0)
    return Difference(
        base=elsewhere.estimate,
        tuned=here.estimate,
        estimate=estimate,
        low=low,
        high=high,
        minimum_detectable_effect=detectable,
        items=here.items + elsewhere.items,
        clusters=here.clusters + elsewhere.clusters,
    )
