"""How many programs a second the sandbox judges, how long one takes, and what the layers cost.

    python -m bench.sandbox [--programs 400]

Programs are trivial: what is measured is starting, confining, asking and cleaning up. Writes
bench/results/sandbox.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from tasks import sandbox
from tasks.sandbox.config import interpreter

_RESULT = Path(__file__).parent / "results" / "sandbox.json"


def measure(count: int, workers: int) -> dict[str, float]:
    """Programs per second with that many at a time, and the median and 95th percentile of one, in seconds."""
    program = sandbox.Program(
        id="trivial", source="def add(x, y): return x + y", test="assert add(1, 2) == 3", entry_point="add"
    )
    started = time.perf_counter()
    verdicts = list(sandbox.run((program for _ in range(count)), workers=workers))
    seconds = time.perf_counter() - started
    if not all(one.passed for one in verdicts):
        raise SystemExit(f"not all passed: {next(one for one in verdicts if not one.passed)}")
    each = sorted(one.seconds for one in verdicts)
    return {
        "programs_per_second": round(count / seconds, 1),
        "median_seconds": round(statistics.median(each), 4),
        "p95_seconds": round(each[int(0.95 * len(each))], 4),
    }


def start_of_an_interpreter(count: int = 50) -> float:
    """Seconds that a bare interpreter takes to start and end, one after the other."""
    started = time.perf_counter()
    for _ in range(count):
        subprocess.run([interpreter(), "-I", "-S", "-c", "pass"], check=True)
    return round((time.perf_counter() - started) / count, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=400)
    count = parser.parse_args().programs
    cores = len(os.sched_getaffinity(0))
    result = {
        "machine": {"cores": cores, "kernel": platform.release(), "python": platform.python_version()},
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "protection": sandbox.probe().model_dump(),
        "programs": count,
        "bare_interpreter_seconds": start_of_an_interpreter(),
        "by_workers": {str(workers): measure(count, workers) for workers in sorted({1, cores, 2 * cores})},
    }
    _RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["by_workers"], indent=1))


if __name__ == "__main__":
    main()
