"""Starts several training processes: `python -m tasks.training.launcher <spec.json> <file descriptor of the pipe>`.

This is torchrun, called as a library: it gives each process its rank (and its GPU, the only one that it sees), watches
them, and ends the others when one fails. SIGTERM is handed on to all, which answer it as a single one does.

torchrun starts its processes in sessions of their own and closes what they would inherit. So they reach the pipe
through this process's entry in `/proc`, and ask the kernel for a SIGTERM when it is gone.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.processes.child import STOPPED, die_with
from tasks.training.messages import Sender, Spec

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig


def main(specification: Path, descriptor: int) -> int:
    """Run the training processes until they end; say how those ended that failed. Returns the exit status."""
    faulthandler.enable()
    spec = Spec.model_validate_json(specification.read_text())
    die_with(spec.parent)
    sender = Sender(descriptor)
    sender.send("phase", title=f"starting {spec.plan.processes} processes", total=None, unit="")
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    arguments = ("-u", "-m", "tasks.training.worker", str(specification), str(descriptor), str(os.getpid()))
    try:
        elastic_launch(_settings(spec), sys.executable)(*arguments)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        sender.send("ranks", statuses={rank: failure.exitcode for rank, failure in error.failures.items()})
        return 1
    return 0


def _settings(spec: Spec) -> LaunchConfig:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=spec.plan.processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,  # going on from a checkpoint is for whoever started this
        virtual_local_rank=spec.plan.device == "cuda",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    # no argument: torch 2.11 does not know it, and waits 30 seconds for the others to end
    settings.shutdown_timeout = round(spec.config.grace_seconds)
    return settings


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
