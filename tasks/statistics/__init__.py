"""Statistics of paired comparisons: differences with intervals, and what could have been seen. What an interval says
against a margin is `artifacts.intervals.verdict`.

    paired       two figures per item, clustered → their difference, its 95 % interval, the minimum detectable effect
    proportions  Wilson's interval of one proportion; McNemar's exact test of two paired ones
    unpaired     two such differences, of different items → the difference between them, with its interval

How well the intervals cover what they say is simulated by `bench/statistics.py`; docs/statistics.md has the results.
"""

from tasks.statistics.paired import FEWEST_CLUSTERS, Difference, paired_difference
from tasks.statistics.proportions import McNemar, mcnemar, wilson
from tasks.statistics.unpaired import contrast

__all__ = [
    "FEWEST_CLUSTERS",
    "Difference",
    "McNemar",
    "contrast",
    "mcnemar",
    "paired_difference",
    "wilson",
]
