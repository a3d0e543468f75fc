"""The stage: look at the model's metadata, then at the machine, then judge; nothing large is read or downloaded."""

from __future__ import annotations

import logging
from pathlib import Path

from artifacts.errors import CodetuneError, InputError
from artifacts.progress import Progress
from artifacts.schema import PreflightReport
from tasks.backends.contract import JobShape
from tasks.exporting.forms import with_needs
from tasks.families import check_family
from tasks.machines.probe import probe
from tasks.models.architecture import read_config
from tasks.models.base_model import ModelReference, stored_tensors, wrong_weights
from tasks.models.shape import ModelShape, read_shape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.judgement import judge
from tasks.preflight.view import sections
from tasks.running.stage import Stage
from tasks.tokenization import check_tokenization

log = logging.getLogger(__name__)


def run_preflight(
    config: PreflightConfig, *, model: ModelReference, job: JobShape, workdir: Path, progress: Progress
) -> PreflightReport:
    """Plan the job for this machine. Writes `plan.json` and `probe.json`.

    Raises:
        PreflightRefused: the machine cannot run the job.
        InputError: job and model do not go together: an unknown target module, too long sequences, no FIM tokens.
    """
    progress.begin("looking at the machine")
    shape = check_model(model, job)
    machine = probe(workdir)
    try:
        judgement = judge(config, job, shape, machine, download=must_download(model))
    except CodetuneError:
        log.info("judged by this machine: %s", machine.in_words)
        raise
    for check in judgement.checks:
        if check.verdict == "warning":
            log.warning("%s: %s%s", check.name, check.finding, f"; {check.remedy}" if check.remedy else "")
    (workdir / "plan.json").write_text(judgement.plan.model_dump_json(indent=1))
    (workdir / "probe.json").write_text(machine.model_dump_json(indent=1))
    return PreflightReport(
        path=workdir,
        machine=machine.in_words,
        plan=judgement.plan,
        prediction=judgement.prediction,
        checks=judgement.checks,
    )


def check_model(model: ModelReference, job: JobShape) -> ModelShape:
    """The model's shape, once it is known that job and model go together.

    Raises:
        InputError: they do not.
    """
    check_family(read_config(model.metadata))
    shape = read_shape(model.metadata)
    shape.check_targets(job.lora_target_modules)
    check_tokenization(job.format, job.max_length, model)
    if shape.tensors:
        _check_tensors(model, shape)
    for form in with_needs(job.exports):
        form.check_model(model)
    return shape


def _check_tensors(model: ModelReference, shape: ModelShape) -> None:
    """Families name and join weights in their own ways, so that here only what has the same name is compared."""
    stored = stored_tensors(model)
    shared = {name: needed for name, needed in shape.tensors.items() if name in stored}
    problem = wrong_weights(stored, shared) if shared else "none of them has a name that the model knows"
    if problem:
        raise InputError(
            f"the weights of {model.name} are not those that its config.json describes: {problem}",
            field="model.name",
            remedy="save it again with transformers: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
        )


def must_download(model: ModelReference) -> bool:
    """Whether the weights still have to come from the hub; those of a folder, or fetched before, lie here already."""
    return model.revision is not None and not any(model.metadata.glob("*.safetensors"))


def machine_fingerprint(_config: PreflightConfig) -> str:
    """What the plan depends on of this machine: the same on the next run unless somebody changes the machine."""
    return probe(None).fingerprint


STAGE = Stage(
    name="preflight",
    version=6,
    run=run_preflight,
    produces=PreflightReport,
    sections=sections,
    identify=machine_fingerprint,
    instant=True,
)
