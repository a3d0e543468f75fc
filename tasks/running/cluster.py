"""What the workers of a Dask cluster do once, when the first run comes to them or they join."""

from __future__ import annotations

from distributed import Worker, WorkerPlugin

from tasks.running.insistence import insist


class Insistent(WorkerPlugin):
    """Has a worker's clients of Prefect insist, from now on: other runs may use the worker, too."""

    name = "codetune-insistence"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """See `distributed`."""
        del worker
        insist()
