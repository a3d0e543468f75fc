"""What a run imports, for a process that runs are copies of: that saves each of them half of its time."""

from __future__ import annotations

import importlib

from flows import environment

environment.apply(quiet=True)
for name in ("flows.finetune", "flows.server", "flows.terminal", "bitsandbytes", "peft", "transformers"):
    importlib.import_module(name)
