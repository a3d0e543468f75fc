"""Which rows there are, and the settings of each."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from artifacts.errors import CodetuneError
from bench.own_code.data import PROJECTS

T4_GIB = 14.56

Model = Literal["smollm2", "built-in"]
LEARNED: dict[Model, tuple[str, ...]] = {
    "smollm2": ("narwhals", "scrapy", "starlette", "textual", "trio"),
    "built-in": ("litestar", "narwhals"),
}
"""The projects that a model learns. The built-in model was trained on the newer releases of the others."""


@dataclass(frozen=True)
class Change:
    """A row: what is set on top of the rows before it."""

    name: str
    words: str
    settings: dict[str, Any] = field(default_factory=dict)
    aside: bool = False
    """Later rows do not have it."""
    learned: tuple[str, ...] = ()
    """The projects, where it is not those of `LEARNED`."""
    seeds: tuple[int, ...] = (42,)


SEEDS = (42, 43, 44)
REFERENCE = (
    Change("reference", "the reference settings", seeds=SEEDS),
    Change(
        "all-linear",
        "all linear layers, r=16, alpha 32",
        {"training.lora": {"r": 16, "alpha": 32, "target_modules": ["all-linear"]}},
    ),
    Change(
        "length",
        "1,024 tokens a sequence, as many tokens in all",
        {"tokenization.max_length": 1024, "training.effective_batch": 1},
    ),
    Change(
        "tokens",
        "8 sequences a step, 3 epochs",
        {"training.effective_batch": 8, "training.epochs": 3, "training.scheduler": "cosine"},
    ),
)
REPLAY = Change(
    "replay",
    "5 % of general code",
    {"sampling.replay": {"share": 0.05, "source": {"kind": "local", "paths": ["stdlib"], "repositories": "top-level"}}},
)
LONG = {"tokenization.max_length": 2048, "training.effective_batch": 4}
PATIENT = {"training.validation": {"patience": 5}}
VALIDATED = {"training.validation": {}, "exporting.adapter_scale": "auto"}
NEAR = Change("near-duplicates", "without near-duplicates", {"sampling.near_duplicates": 0.7})
ALONE = {
    model: tuple(
        Change(f"one-{name}", f"{project} alone, {words}", changes, aside=True, learned=(project,))
        for name, words, changes in (
            ("3", "3 epochs", {"training.epochs": 3}),
            ("10", "10 epochs", {"training.epochs": 10}),
            ("30", "30 epochs", {"training.epochs": 30}),
            ("50", "50 epochs, ended by validation", {"training.epochs": 50} | PATIENT),
        )
    )
    for model, project in (("smollm2", "starlette"), ("built-in", "jinja2"))
}
"""How often the code of one small project should be read."""
CHAINS: dict[Model, tuple[Change, ...]] = {
    "smollm2": (
        *REFERENCE,
        Change("rate-1e-3", "learning rate 1e-3", {"training.learning_rate": 1e-3}, aside=True, seeds=SEEDS),
        Change("rate-5e-4", "learning rate 5e-4", {"training.learning_rate": 5e-4}, seeds=SEEDS),
        Change("epochs-6", "6 epochs", {"training.epochs": 6}, aside=True),
        Change("epochs-10", "10 epochs", {"training.epochs": 10}, aside=True),
        Change("epochs-20", "20 epochs", {"training.epochs": 20}, aside=True),
        Change("epochs-35", "35 epochs, ended by validation", {"training.epochs": 35} | PATIENT, aside=True),
        *ALONE["smollm2"],
        Change("rank-64", "r=64, alpha 128", {"training.lora.r": 64, "training.lora.alpha": 128}, aside=True),
        Change("length-2048", "2,048 tokens a sequence", LONG, aside=True),
        Change("packing", "packed", {"training.packing": True}, aside=True),
        Change("questions", "a tenth of questions", {"tokenization.question_rate": 0.1}, aside=True),
        Change("validation", "the best weights by validation", VALIDATED, aside=True),
        REPLAY,
        NEAR,
    ),
    "built-in": (
        Change(
            "causal",
            "the settings of the row “learning rate 5e-4”",
            {k: v for one in REFERENCE for k, v in one.settings.items()} | {"training.learning_rate": 5e-4},
        ),
        Change(
            "fim",
            "half of the chunks to fill in",
            {"tokenization.format": "fim", "tokenization.fim_rate": 0.5, "tokenization.spm_rate": 0.0},
        ),
        Change(
            "context",
            "a part of them behind other files of the repository",
            {"tokenization.context": {"share": 0.3, "max_tokens": 384}},
        ),
        Change("spans", "spans along syntax", {"tokenization.syntax_rate": 0.5}),
        *ALONE["built-in"],
        REPLAY,
        NEAR,
    ),
}


@dataclass(frozen=True)
class Task:
    """A row with a seed."""

    model: Model
    row: str
    seed: int

    @property
    def change(self) -> Change:
        return next(one for one in CHAINS[self.model] if one.name == self.row)

    def __str__(self) -> str:
        return f"{self.model}/{self.row}/{self.seed}"

    def settings(self, data: Path, quick: bool) -> dict[str, Any]:
        """The pipeline's."""
        chain = CHAINS[self.model]
        place = [one.name for one in chain].index(self.row)
        settings = _given(self.model, self.change.learned or LEARNED[self.model], data, quick)
        for one in chain[: place + 1]:
            if one.name != self.row and (one.aside or not known(one.settings)):
                continue
            for dotted, value in one.settings.items():
                put(settings, dotted, value)
        if quick:
            settings["training"] |= {"max_steps": 4, "warmup_steps": 1}
        put(settings, "training.seed", self.seed)
        return settings


def as_task(name: str) -> Task:
    """As `str` writes one."""
    model, row, seed = name.split("/")
    assert model in CHAINS, f"there is no model {model}"
    return Task("smollm2" if model == "smollm2" else "built-in", row, int(seed))


def put(settings: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, name = dotted.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[name] = deepcopy(value)


def _given(model: Model, projects: tuple[str, ...], data: Path, quick: bool) -> dict[str, Any]:
    """What all rows have: weights in 16 bits, arithmetic and memory of a T4, the same questions."""
    learned = [str(data / "projects" / f"{name}-{one}") for name in projects for one in PROJECTS[name]]
    others = [str(path) for path in sorted((data / "elsewhere").iterdir())]
    counts = (16, 8) if quick else (800, 400)
    middle = counts[1] if model == "built-in" else 0
    return {
        "model": {"name": "models/codellama-tiny" if model == "built-in" else str(data / "smollm2")},
        "preflight": {"precision": "fp16", "gpu_memory_gib": T4_GIB},
        "sampling": {
            "source": {"kind": "local", "paths": learned},
            "held_out_by": "release",
            "files": 200 if quick else 10_000,
        },
        "retention": {
            "source": {"kind": "local", "paths": others, "repositories": "path"},
            "languages": ["Python"],
            "files": 60 if quick else 600,
        },
        "training": {"quantization": "none", "save_steps": 100_000, "cpu_threads": 2},
        "exporting": {"forms": []},
        "prompts": {
            "max_chunks": 16 if quick else 400,
            "line_prompts": counts[0],
            "fim_prompts": middle,
            "block_prompts": middle // 2,
            "prompt_tokens": 128 if quick else 512,
            "context_tokens": 256 if model == "built-in" and not quick else 0,
            "max_new_tokens": 32,
        },
        "generation": {"repeated": 0.02, "batch_size": 16 if quick else 128},
    }


def known(changes: dict[str, Any]) -> bool:
    """Whether this version has the settings of a row."""
    from flows.config import of

    settings: dict[str, Any] = {}
    for dotted, value in changes.items():
        put(settings, dotted, value)
    try:
        of(settings)
    except CodetuneError:
        return False
    return True
