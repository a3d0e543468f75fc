"""TRL's `SFTTrainer`, made safe: fp32 adapter, sealed checkpoints, nothing learned from numbers that are not finite.

Imports torch; only the training process imports this module.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import nested_gather
from trl import SFTTrainer

from artifacts.errors import StageError
from artifacts.presentation import duration
from tasks.backends.contract import Backend, Stepping
from tasks.models.residual import is_fp32
from tasks.processes import ranks
from tasks.training.batches import FILLER, IGNORED, Batches
from tasks.training.checkpoints import Checkpoints
from tasks.training.readings import Readings
from tasks.training.validating import SCALES, Validation, best_of, measured, out_of_patience

FLUSH_SECONDS = 1.0
"""Event files are brought to the disk so often."""
SKIPS_ALLOWED = 20
"""Steps in a row that the gradient scaler may skip. It starts at 2^16 and halves each time: more is no search for the
right scale any more."""


class Unread:
    """Numbers of a step that are on their way from the GPU."""

    def __init__(self, numbers: torch.Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._event = torch.cuda.Event() if numbers.is_cuda else None
        self._numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory, which torch allocates for this
        if self._event is not None:
            self._event.record()

    def read(self) -> list[float]:
        """Wait for them."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._numbers.tolist()
        return values


class PackedCollator:
    """Sequences of several chunks, filled up to one length. No attention mask: the modules of transformers keep chunks
    apart where positions begin anew, as long as there is none.

    Args:
        length: tokens of every sequence.
    """

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        rest = [self._length - len(row["input_ids"]) for row in rows]
        filled = list(zip(rows, rest, strict=True))
        return {
            "input_ids": torch.tensor([[*row["input_ids"], *[FILLER] * left] for row, left in filled]),
            "labels": torch.tensor([[*row["labels"], *[IGNORED] * left] for row, left in filled]),
            "position_ids": torch.tensor([[*row["position_ids"], *range(left)] for row, left in filled]),
        }


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """Trains the LoRA weights of a quantized model.

    TRL casts the trainable weights of quantized models to bf16 (`SFTTrainer.__init__`), which the fp16 gradient
    scaler cannot unscale and which loses small updates: they are cast back to fp32 before an optimizer sees them.
    """

    def __init__(
        self,
        *,
        batches: Batches,
        checkpoints: Checkpoints,
        readings: Readings,
        backend: Backend,
        stepping: Stepping | None,
        validation: Validation | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batches, self.checkpoints, self.readings = batches, checkpoints, readings
        self.backend, self.validation = backend, validation
        self.stepping = stepping
        if stepping is not None:  # it adds up the processes' gradients itself, and needs no DistributedDataParallel
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self._started = time.monotonic()
        self._losses: list[torch.Tensor] = []
        self._source: tuple[Any, ...] = ()
        self._ahead: Any = None
        self._unread: Unread | None = None
        self._skipped = 0
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer over the adapter, which must be fp32."""
        trainable = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        assert trainable and all("lora_" in name for name in trainable), trainable
        assert all(self.model.get_parameter(name).dtype == torch.float32 for name in trainable)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def get_batch_samples(self, *source: Any) -> Any:
        """Fetch what one optimizer step needs: the micro-batches, and how many tokens count."""
        if not self._source:
            if self.validation is not None and self.state.global_step == 0:
                self.log({"validation_loss": self.validation.loss(self._sums)})
            self._started = time.monotonic()
        self._losses, self._source = [], source
        ahead, self._ahead = self._ahead, None
        return super().get_batch_samples(*source) if ahead is None else ahead

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch."""
        if self.stepping is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        else:
            last = self.accelerator.sync_gradients
            loss = self.stepping.step(self.model, inputs, num_items_in_batch, self.accelerator.scaler, last=last)
        self._losses.append(loss)
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody reads it, and counting a 7B's parameters at every micro-batch takes milliseconds."""
        return 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm before clipping, which stays on the GPU: nothing of a step waits for its numbers.

        They are read in the next step, when that one's kernels are under way: between two steps the GPU never idles.
        """
        if self.state.global_step + 1 < self.args.max_steps:  # the next step's texts, while the GPU computes this one
            self._ahead = super().get_batch_samples(*self._source)
        self._settle()
        loss = nested_gather(torch.stack(self._losses).sum(), self.args.parallel_mode).mean()
        numbers = torch.stack([torch.as_tensor(grad_norm).to(loss), loss, *self._losses])
        self._unread = Unread(numbers, self._get_learning_rate())
        return grad_norm

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Logs come from `_settle`; what is saved is complete, and was looked at before."""
        stopping = self.control.should_training_stop or self.state.global_step >= self.args.max_steps
        validating = self.validation is not None and self.validation.due(self.state.global_step, self.args.max_steps)
        if self.control.should_save or stopping or validating or not torch.cuda.is_available():
            self._settle()
        if validating:
            self._validate()
        self.control.should_log = False
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _validate(self) -> None:
        """Measure once after a step. What is saved then knows of it."""
        validation, history = self.validation, self.state.log_history
        assert validation is not None
        if any(entry["step"] == self.state.global_step for entry in measured(history)[-1:]):
            return  # this is asked once more at the end of all steps
        self.log({"validation_loss": validation.loss(self._sums)})
        validation.note(history, self.adapter)
        if out_of_patience(history, validation.settings):
            self.control.should_save = self.control.should_training_stop = True
        self._started = time.monotonic()  # no part of the next step

    def _sums(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `tasks.training.validating.Sums`."""
        if self.stepping is not None:
            return self.stepping.loss(self.model, ids, labels)
        self.model.eval()
        inference = self.backend.inference(self.model, ids.shape[1])
        assert inference is not None
        with self.compute_loss_context_manager(), inference.side(adapted=True) as modules:
            return modules.losses(ids, labels != IGNORED).sum()

    @property
    def adapter(self) -> dict[str, torch.Tensor]:
        """The trained weights by name, as they are now."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def scaled(self, loss: float) -> dict[float, float]:
        """The loss on validation text by weight of the adapter; `loss`: as it is."""
        assert self.validation is not None
        found = {1.0: loss}
        factors = [weight for name, weight in self.adapter.items() if "lora_B" in name]
        whole = [weight.clone() for weight in factors]
        for scale in SCALES:
            for weight, was in zip(factors, whole, strict=True):
                weight.copy_(was * scale)
            found[scale] = self.validation.loss(self._sums)
        for weight, was in zip(factors, whole, strict=True):
            weight.copy_(was)
        return found

    def _settle(self) -> None:
        """Wait for the last step's numbers, look at them, and log them.

        With a gradient scaler a norm that is not finite is a step that it skips.

        Raises:
            StageError: a loss is not finite, or the norm again and again.
        """
        unread, self._unread = self._unread, None
        if unread is None:
            return
        norm, mean, *losses = unread.read()
        size = self.args.per_device_train_batch_size
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                # the processes take turns in fetching micro-batches
                place = number * ranks.count() + ranks.rank()
                raise self._not_finite(f"the loss is {loss}", place * size, size)
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if self._skipped > (SKIPS_ALLOWED if self.accelerator.scaler is not None else 0):
            whole = size * self.args.gradient_accumulation_steps * ranks.count()
            raise self._not_finite(f"the gradient norm is {norm}", 0, whole)
        self.log({"loss": mean, "grad_norm": norm, "learning_rate": unread.learning_rate})

    def _not_finite(self, finding: str, first: int, count: int) -> StageError:
        step = self.state.global_step
        remedy = "look at these files, lower training.learning_rate, or check the base model's weights"
        if self.args.fp16:  # some models, made in bf16, have larger numbers in their residual stream
            remedy += "; or compute with numbers beyond 65,504, where fp16 ends: "
            if not is_fp32(self.model.get_base_model()):
                remedy += "preflight.fp32_residual=true, "
            remedy += "preflight.precision=bf16 on a GPU of compute capability 8.0 or newer, fp32 on others"
        return StageError(
            f"training diverged at step {step}: {finding} on this batch (repository, path, number of the chunk):\n"
            + self.batches.describe(step, first, count),
            field="training.learning_rate",
            remedy=f"{remedy}; nothing of this step was kept",
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete the record of a step. It stays in `state.log_history`, and so in every checkpoint."""
        if "loss" in logs:
            now = time.monotonic()
            seconds, self._started = now - self._started, now
            tokens = self.batches.tokens(self.state.global_step)
            logs.update(tokens=tokens, seconds=seconds, tokens_per_second=tokens / seconds, **self.readings.read())
        super().log(logs, start_time)

    def records(self) -> list[dict[str, Any]]:
        """What was logged of every step, in order; the loss on validation text where that was measured after it."""
        history = self.state.log_history
        found = {entry["step"]: {"validation_loss": entry["validation_loss"]} for entry in measured(history)}
        return [entry | found.get(entry["step"], {}) for entry in history if "loss" in entry]

    def _get_output_dir(self, trial: Any) -> str:
        """Checkpoints are staged, then sealed."""
        return str(self.checkpoints.staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super(SFTTrainer, self)._save_checkpoint(model, trial)  # past TRL's, which writes a model card each time
        if self.validation is not None and ranks.rank() == 0:
            self.validation.save(self.checkpoints.staging / f"checkpoint-{self.state.global_step}")
        ranks.wait_for_all()  # every process has written the state of its random numbers
        if ranks.rank() == 0:
            self.checkpoints.seal(self.state.global_step)
        self._started = time.monotonic()  # no part of the next step

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only the adapter: tokenizer and arguments stand elsewhere."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # "auto" would ask whether the embeddings were resized, which never happens here
        self.model.save_pretrained(str(folder), save_embedding_layers=False)


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Tells the supervising process about every step, and stops at a step's end when asked to: all processes at the
    end of the same step, whichever heard of it first."""

    def __init__(self, sender: Any, stop: Any) -> None:
        self._sender, self._stop = sender, stop
        self._validated: dict[str, float | str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What was measured before an interruption is shown again."""
        self._look_back(state)

    def _look_back(self, state: Any) -> None:
        if best := best_of(state.log_history):
            last = measured(state.log_history)[-1]["validation_loss"]
            self._validated = {"validation": f"{last:.4f}, best {best['validation_loss']:.4f} at step {best['step']}"}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and leave when somebody asked to."""
        if ranks.any_of_us(self._stop.requested):
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Pass the step on."""
        if "validation_loss" in logs:
            self._look_back(state)
        if "loss" not in logs:
            return
        left = (state.max_steps - state.global_step) * logs["seconds"]
        gpu = "gpu_temperature_c" in logs
        details: dict[str, float | str] = {
            "loss": round(logs["loss"], 4),
            **self._validated,
            "tokens/s": round(logs["tokens_per_second"]),
            "left": duration(left),
            "GPU memory" if gpu else "memory": f"{logs['memory_gib']:.2f} GiB",
            **({"GPU": f"{logs['gpu_temperature_c']:.0f} °C"} if gpu else {}),
            "learning rate": f"{logs['learning_rate']:.2g}",
        }
        self._sender.send("step", step=state.global_step, details=details)


class EventFiles(TrainerCallback):  # type: ignore[misc]
    """TensorBoard event files of every step, each step once.

    Not transformers' callback: that one knows no `purge_step`, so that steps which a killed run had done after its
    last checkpoint would stand there twice, and it writes all arguments with the paths of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._flushed = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the file; what later steps of an earlier attempt wrote is void."""
        from torch.utils.tensorboard import SummaryWriter

        first = state.global_step + 1 if state.global_step else 0  # 0 has the loss on validation text alone
        self._writer = SummaryWriter(str(self._folder), purge_step=first)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Write one value per reading."""
        if "validation_loss" in logs:
            self._writer.add_scalar("validation/loss", logs["validation_loss"], state.global_step)
        if "loss" in logs:
            for name, value in logs.items():
                self._writer.add_scalar(f"train/{name}", value, state.global_step)
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        self._writer.close()
