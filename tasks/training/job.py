"""What the training process does: load, train, write the results. Imports torch; see `worker` for the process."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch

from artifacts.errors import InputError
from artifacts.reading import blamed_on
from artifacts.schema import Plan
from tasks import backends
from tasks.families import EMBEDDINGS
from tasks.models.libraries import import_bitsandbytes
from tasks.models.loading import load_base, silence_peft
from tasks.models.shape import ALL_LINEAR
from tasks.processes import ranks
from tasks.training.aside import set_aside
from tasks.training.batches import FILLER, Batches
from tasks.training.checkpoints import Checkpoints, step_of
from tasks.training.fallback import out_of_memory
from tasks.training.messages import RESULT, Sender, Spec
from tasks.training.readings import Readings

if TYPE_CHECKING:
    from tasks.training.trainer import AdapterTrainer
    from tasks.training.worker import StopRequest

log = logging.getLogger(__name__)


def import_libraries(plan: Plan) -> None:
    """Import what training needs: seconds."""
    import_bitsandbytes()
    from tasks.training import trainer  # noqa: F401

    backends.get(plan.backend).stepping(plan, layers=1)


def train(spec: Spec, workdir: Path, sender: Sender, stop: StopRequest) -> bool:
    """Train to the last step, from the newest checkpoint if there is one. Returns False when asked to stop before."""
    torch.set_num_threads(spec.config.cpu_threads)
    sender.send("phase", title="loading the base model", total=None, unit="")
    trainer = build_trainer(spec, workdir, sender, stop)
    start = ranks.as_first(trainer.checkpoints.newest() if ranks.rank() == 0 else None)
    if ranks.rank() == 0:
        trainer.checkpoints.prepare()
    if start is not None:
        log.info("continuing from the checkpoint of step %d", step_of(start))
    sender.send("phase", title="training", total=spec.config.steps, unit="steps")
    stop.training = True
    _optimize(trainer, start)
    from tasks.training.validating import out_of_patience

    early = out_of_patience(trainer.state.log_history, spec.config.validation)
    if trainer.state.global_step < spec.config.steps and not early:
        sender.send("stopped", step=trainer.state.global_step)
        return False
    validated = _validated(trainer, sender)
    if ranks.rank() > 0:
        return True
    write_adapter(trainer.model, workdir / RESULT / "adapter", spec)
    write_metrics(trainer.records(), workdir / RESULT / "metrics.parquet")
    aside = trainer.validation.tokens if trainer.validation else 0
    known = {"tokens_at_hand": spec.tokens.train.tokens - aside, "validation": validated, "stopped_early": early}
    sender.send("result", handle=_summary(trainer, start) | known)
    return True


def _validated(trainer: AdapterTrainer, sender: Sender) -> dict[str, Any] | None:
    """Turn the weights into those that are handed over. Returns what is told of the validation, if there is one."""
    validation = trainer.validation
    if validation is None:
        return None
    sender.send("phase", title="trying weights of the adapter", total=None, unit="")
    validation.hand_over(trainer.adapter)
    history = trainer.state.log_history
    kept = validation.result(history, {})
    return validation.result(history, trainer.scaled(kept.kept_loss)).model_dump(mode="json")


def _optimize(trainer: AdapterTrainer, start: Path | None) -> None:
    """All steps. Raises NoMemoryError with the step that did not fit."""
    from transformers import TrainerState

    from tasks.training.validating import out_of_patience

    if start is not None and trainer.validation is not None:
        trainer.validation.restore(start)
        history = TrainerState.load_from_json(str(start / "trainer_state.json"))
        if out_of_patience(history.log_history, trainer.validation.settings):  # killed after it had ended early
            trainer.state = history
            trainer._load_from_checkpoint(str(start))
            return
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except Exception as error:
        # `state` holds nothing yet while the checkpoint is loaded
        done = max(trainer.state.global_step, step_of(start) if start else 0)
        if explained := out_of_memory(error, done + 1):
            raise explained from error
        raise


def build_trainer(spec: Spec, workdir: Path, sender: Sender, stop: StopRequest) -> AdapterTrainer:
    """The trainer with model, data and everything that watches it."""
    import_libraries(spec.plan)
    from transformers import AutoTokenizer, PrinterCallback, set_seed
    from transformers.utils import logging as transformers_logging
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from tasks.training.trainer import AdapterTrainer, EventFiles, PackedCollator, Reporter
    from tasks.training.validating import Validation

    # Its records go to our handler like everybody's, not to a stream of their own.
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    logging.getLogger("transformers.trainer_utils").addFilter(
        # a run may be continued with another micro-batch and other `save_steps`
        lambda record: "do not match the ones in the `trainer_state.json`" not in record.getMessage()
    )
    silence_peft()
    config, tokens = spec.config, spec.tokens
    file, backend = Path(spec.data), backends.get(spec.plan.backend)
    rows = set_aside(file, config.validation, config.seed)
    room = tokens.max_length if config.packing else None
    batches = Batches(file, size=config.effective_batch, steps=config.steps, seed=config.seed, rows=rows, room=room)
    validation = Validation(config.validation, batches, tokens.max_length) if config.validation else None
    model = load_base(Path(spec.model), config.quantization, spec.plan)
    _check_targets(model, config.lora.target_modules)
    with blamed_on(Path(spec.model, "tokenizer_config.json"), field="model.name"):
        tokenizer = AutoTokenizer.from_pretrained(spec.model, local_files_only=True, trust_remote_code=False)
    callbacks: list[Any] = [Reporter(sender, stop)]
    if "tensorboard" in config.trackers and ranks.rank() == 0:
        callbacks.append(EventFiles(workdir / RESULT / "tensorboard"))
    set_seed(config.seed)  # TRL 1.12 does so only after it has made the adapter
    stepping = backend.stepping(spec.plan, model.config.num_hidden_layers, packed=config.packing)
    trainer = AdapterTrainer(
        backend=backend,
        stepping=stepping,
        validation=validation,
        batches=batches,
        checkpoints=Checkpoints(workdir / "checkpoints"),
        readings=Readings(spec.plan),
        model=model,
        args=_arguments(spec, workdir, own_passes=stepping is not None),
        train_dataset=batches.dataset(),
        processing_class=tokenizer,
        # every micro-batch has the same shape: max_length is the only multiple of it that a chunk needs
        data_collator=PackedCollator(tokens.max_length)
        if config.packing
        else DataCollatorForLanguageModeling(pad_token_id=FILLER, pad_to_multiple_of=tokens.max_length),
        peft_config=_lora(spec),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # comes with disable_tqdm and prints every log
    return trainer


def write_adapter(model: Any, folder: Path, spec: Spec) -> None:
    """The adapter in PEFT's form, with bytes that depend on nothing but the training."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # PEFT's empty model card
    path = folder / "adapter_config.json"
    # PEFT writes sets in the order of their hashes, and the folder that the base model was loaded from.
    written = json.loads(path.read_text())
    settings = {name: sorted(value) if isinstance(value, list) else value for name, value in written.items()}
    settings |= {"base_model_name_or_path": spec.model_name, "revision": spec.model_revision}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def write_metrics(records: list[dict[str, Any]], file: Path) -> None:
    """One row per optimizer step. `grad_norm` is null where the gradient scaler skipped the step, and `validation_loss`
    where it was not measured."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["step", "loss", "learning_rate", "grad_norm", "tokens", "seconds", "tokens_per_second", "memory_gib"]
    columns += [name for name in ("gpu_temperature_c", "gpu_power_w", "gpu_utilization") if name in records[0]]
    columns += ["validation_loss"] if any("validation_loss" in record for record in records) else []
    kinds = {"step": pa.int32(), "tokens": pa.int32()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    finite = [{name: _finite(record.get(name)) for name in columns} for record in records]
    pq.write_table(pa.Table.from_pylist(finite, schema), file)


def _arguments(spec: Spec, workdir: Path, *, own_passes: bool) -> Any:
    """Everything that decides something is set: TRL's defaults differ from transformers' and change (bf16 is on unless
    fp16 is, max_length is 1024, the learning rate 2e-5, gradient checkpointing on)."""
    from trl import SFTConfig

    config, plan = spec.config, spec.plan
    on_gpu = plan.device == "cuda"
    checkpointing = plan.gradient_checkpointing and not own_passes
    return SFTConfig(
        output_dir=str(workdir / "checkpoints"),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=spec.tokens.max_length,
        packing=False,
        loss_type="nll",
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        average_tokens_across_devices=True,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        # else fetching the next step's texts waits for this one's kernels, and the GPU for what the CPU does after
        accelerator_config={"non_blocking": on_gpu},
        max_steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type=config.scheduler,
        optim=config.optimizer,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        use_cpu=not on_gpu,
        fp16=on_gpu and plan.precision == "fp16",
        bf16=on_gpu and plan.precision == "bf16",
        # TRL's own names for these are deprecated by transformers; it calls `enable_input_require_grads` for both
        gradient_checkpointing=None,
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        seed=config.seed,
        data_seed=config.seed,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        report_to=[name for name in config.trackers if name != "tensorboard"] or "none",
        disable_tqdm=True,
        log_level="warning",
    )


def _lora(spec: Spec) -> Any:
    from peft import LoraConfig

    lora = spec.config.lora
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=ALL_LINEAR if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules),
        bias="none",
    )


def _check_targets(model: Any, targets: tuple[str, ...]) -> None:
    """PEFT leaves out in silence what it does not find, as long as it finds something."""
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    unknown = [
        target
        for target in targets
        if target != ALL_LINEAR and not any(name == target or name.endswith(f".{target}") for name in linear)
    ]
    if unknown:
        there = sorted({name.rpartition(".")[2] for name in linear} - set(EMBEDDINGS))
        raise InputError(
            f"the model has no linear layer named {', '.join(unknown)}",
            field="training.lora.target_modules",
            remedy=f"choose among {', '.join(there)}",
        )


def _summary(trainer: AdapterTrainer, start: Path | None) -> dict[str, Any]:
    """The fields of the handle."""
    records = trainer.records()
    losses = [record["loss"] for record in records]
    tenth = max(1, len(losses) // 10)
    # Quantized weights count as what they stand for; PEFT knows how nf4 packs two of them into a byte.
    trainable, total = trainer.model.get_nb_trainable_parameters()
    return {
        "steps": trainer.state.global_step,
        "tokens": sum(record["tokens"] for record in records),
        "first_loss": fmean(losses[:tenth]),
        "last_loss": fmean(losses[-tenth:]),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "peak_memory_gib": max(trainer.readings.peak(), *(record["memory_gib"] for record in records)),
        "step_seconds": median(record["seconds"] for record in records),
        "tokens_per_second": median(record["tokens_per_second"] for record in records),
        "resumed_from": step_of(start) if start else None,
    }


def _finite(value: Any) -> Any:
    return value if value is None or abs(value) < float("inf") else None
