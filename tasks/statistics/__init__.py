"""Statistics of paired comparisons: differences with intervals, what could have been seen, and verdicts.

    paired       two figures per item, clustered → their difference, its 95 % interval, the smallest detectable one
    proportions  Wilson's interval of one proportion; McNemar's exact test of two paired ones
    verdicts     an interval and a margin → learned, kept, unclear or worse

How well the intervals cover what they say is simulated by `bench/statistics.py`; docs/evaluation.md has the results.
"""

from tasks.statistics.paired import FEWEST_CLUSTERS, Difference, paired_difference
from tasks.statistics.proportions import McNemar, mcnemar, wilson
from tasks.statistics.verdicts import Better, Verdict, improvement, verdict

__all__ = [
    "FEWEST_CLUSTERS",
    "Better",
    "Difference",
    "McNemar",
    "Verdict",
    "improvement",
    "mcnemar",
    "paired_difference",
    "verdict",
    "wilson",
]
