"""One micro-batch as one CUDA graph: the GPU runs from the first kernel to the last without the CPU.

Launching the kernels of a 7B's micro-batch one by one takes longer than running them. Their shapes are the same for
every micro-batch, so they are recorded once and replayed as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from tasks.backends.fused.model import FusedModel

log = logging.getLogger(__name__)
Tensor = torch.Tensor

WARM_UP = 2
"""Eager passes before recording: they compile kernels and let cuBLAS set up its workspaces."""


class MicroBatch:
    """Runs micro-batches of one shape; recorded where that is possible, else kernel by kernel.

    Args:
        shape: sequences and tokens of each.
        packed: a sequence holds several texts.
    """

    def __init__(self, model: FusedModel, shape: tuple[int, int], *, packed: bool = False) -> None:
        self._model, self._shape = model, shape
        device = model.embedding.device
        self._ids = torch.zeros(shape, dtype=torch.long, device=device)
        self._labels = torch.zeros(shape, dtype=torch.long, device=device)
        self._positions = torch.zeros(shape, dtype=torch.long, device=device) if packed else None
        self._factor = torch.ones((), dtype=torch.float32, device=device)
        self._loss = torch.zeros((), dtype=torch.float32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._graph = record(model, self._compute, WARM_UP)
            model.adapters.clear()

    @property
    def captured(self) -> bool:
        """Whether it runs as one graph."""
        return self._graph is not None

    def run(self, ids: Tensor, labels: Tensor, factor: Tensor, positions: Tensor | None = None) -> Tensor:
        """As `FusedModel.loss_and_gradients`; nothing here waits for the GPU."""
        if tuple(ids.shape) != self._shape or self._graph is None:
            device = self._ids.device
            places = None if positions is None else positions.to(device)
            return self._model.loss_and_gradients(ids.to(device), labels.to(device), factor.to(device), places)
        self._ids.copy_(ids, non_blocking=True)
        self._labels.copy_(labels, non_blocking=True)
        self._factor.copy_(factor, non_blocking=True)
        if self._positions is not None:
            assert positions is not None
            self._positions.copy_(positions, non_blocking=True)
        self._graph.replay()
        return self._loss.clone()

    def _compute(self) -> None:
        self._loss = self._model.loss_and_gradients(self._ids, self._labels, self._factor, self._positions)


def record(model: FusedModel, work: Callable[[], None], warm_up: int) -> torch.cuda.CUDAGraph | None:
    """`work` as a CUDA graph; None, with a line in the log, where it cannot be recorded.

    Args:
        warm_up: passes before recording; what they leave must not matter.

    Raises:
        torch.OutOfMemoryError: memory ran out, which launching kernel by kernel would not help.
    """
    # A resumed run must draw the random numbers that an undisturbed one does.
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    numbers, before = torch.cuda.get_rng_state(), generator.clone_state()
    try:
        _warm_up(work, warm_up)
        graph = torch.cuda.CUDAGraph()
        # Products go before the unpacking of the next one's weights, which has a stream of usual priority.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(priority=-1)):
            try:
                work()
            except RuntimeError:
                model.join()  # else the recording cannot even be given up
                raise
    except RuntimeError as error:
        generator.graphsafe_set_state(before)  # the one that was being recorded can draw no more
        # What ends a broken recording raises an error of its own, over the one that broke it.
        if shortage := _shortage(error):
            raise shortage from error
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("no CUDA graph: %s; every kernel is launched by itself, which is slower", said)
        return None
    torch.cuda.set_rng_state(numbers)
    return graph


def _warm_up(work: Callable[[], None], passes: int) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(passes):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    # What the eager passes held is of no use to the graph, which has memory of its own.
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def _shortage(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The lack of memory behind an error; None where there is none."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error
