"""The gate: whether a tuned model is promoted, and its comparison with the champion.

stage       figures → verdicts → promote or hold, with reasons; a stage like the others, cached
results     what both models did on each item, kept with the model for comparisons to come
promotion   the decision against the present champion, on the same items; moves the champion, once
"""

from tasks.gate.config import GateConfig
from tasks.gate.stage import STAGE, run_gate

__all__ = ["STAGE", "GateConfig", "run_gate"]
