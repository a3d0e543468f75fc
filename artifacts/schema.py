"""Handles: the small typed records that stages hand to each other. What they stand for lies in the store.

`DatasetSample → TokenizedDataset → Checkpoint → ExportedModel → Generations → EvaluationReport → RunReport`, with the
`PreflightReport`, its `Plan` and the `QuantizedBase` going into training, and `Executions` into the evaluation. Records
only: no tensors, no behaviour beyond small sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from artifacts import digest
from artifacts.intervals import Better, Verdict, improvement, verdict

Quantization = Literal["int8", "nf4", "none"]
Engine = Literal["stock", "fused"]


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Handle(Record):
    """A published artifact, or one in the making while its stage runs (`place` and `fingerprint` still empty)."""

    measurements: ClassVar[tuple[str, ...]] = ()
    """Glob patterns of files that hold times and readings: kept and verified, but no part of the fingerprint."""

    place: str = ""
    """`<stage>/<key>`: where the store keeps it."""
    fingerprint: str = ""
    """Hex sha256 over the contents, measurements left out: equal contents have equal fingerprints."""
    path: Path = Field(default=Path(), exclude=True, repr=False)
    """The folder with the files on this machine, set by whoever opened the artifact; never stored."""

    @property
    def summary(self) -> str:
        """The result in a few words, for one line of a terminal."""
        raise NotImplementedError

    @property
    def known_by(self) -> frozenset[str]:
        """The fingerprints by which later stages know it: its own, and those of parts that are passed on alone."""
        return frozenset({self.fingerprint})


# --- sampling -------------------------------------------------------------------------------------------------


class SplitSize(Record):
    """How much one side of the split holds."""

    files: int
    repositories: int
    bytes: int


class FunnelStep(Record):
    """One step of choosing the sample: what came in, what went on, and why the rest did not."""

    name: str
    kept: int
    """Rows that went on."""
    dropped: dict[str, int] = {}
    """Rows that did not, by reason."""


class DatasetSample(Handle):
    """`train.parquet` and `held_out.parquet`, a row per source file: `repo, path, language, license, size` (bytes),
    `sha256` (of the content), `revision` (of the source), `content` (text). No repository is on both sides."""

    source: str
    """The source in words, for people: `github-code@b5661e6b (3 shards)`."""
    train: SplitSize
    held_out: SplitSize
    languages: dict[str, int]
    """Files by language, both sides."""
    licenses: dict[str, int]
    """Files by licence, both sides; `unknown` where the source says nothing."""
    funnel: tuple[FunnelStep, ...]

    @property
    def summary(self) -> str:
        train, held_out = self.train, self.held_out
        return (
            f"{train.files:,} files of {train.repositories:,} repositories to learn from, "
            f"{held_out.files:,} of {held_out.repositories:,} held out"
        )


class KeptSample(DatasetSample):
    """The same of code from outside what is trained on: both sides are there to be judged by."""

    @property
    def size(self) -> SplitSize:
        """Of both."""
        return SplitSize(
            files=self.train.files + self.held_out.files,
            repositories=self.train.repositories + self.held_out.repositories,
            bytes=self.train.bytes + self.held_out.bytes,
        )

    @property
    def summary(self) -> str:
        size = self.size
        return f"{size.files:,} files of {size.repositories:,} repositories from elsewhere, to see what is forgotten"


# --- tokenization ---------------------------------------------------------------------------------------------


class TokenizedSplit(Record):
    """One side of the split as chunks of `max_length` tokens."""

    files: int
    chunks: int
    tokens: int
    """Real tokens, special ones included, padding not."""
    padding: int
    """Tokens of padding needed to bring every chunk to `max_length`."""
    text_bytes: int
    """UTF-8 bytes of the text that the tokens stand for."""
    dropped: dict[str, int] = {}
    """Files that gave no chunk, by reason."""

    @property
    def padding_share(self) -> float:
        return self.padding / max(1, self.padding + self.tokens)


class TokenizedDataset(Handle):
    """`train.parquet` and `held_out.parquet`, a row per chunk: `input_ids` (list of int32, at most `max_length`, not
    padded), `completion_mask` (list of int8, `instruct` only: 1 where the loss counts), and where it came from:
    `repo, path, sha256, language, chunk` (number within the file, from 0). Chunks of a file stand in order."""

    format: Literal["causal", "fim", "instruct"]
    max_length: int
    train: TokenizedSplit
    held_out: TokenizedSplit

    @property
    def summary(self) -> str:
        return (
            f"{self.train.chunks:,} chunks of {self.max_length} tokens, {self.train.padding_share:.1%} padding; "
            f"{self.held_out.chunks:,} held out"
        )


# --- preflight ------------------------------------------------------------------------------------------------


class Plan(Record):
    """How the job will run on this machine: whatever here differs makes different bits, but for what `fingerprint`
    leaves out."""

    device: Literal["cuda", "cpu"]
    precision: Literal["fp16", "bf16", "fp32"]
    """Arithmetic of the forward and backward pass; trainable weights are fp32 always."""
    micro_batch: int
    """Sequences in one forward pass."""
    accumulation: int
    """Forward passes in one optimizer step, of each process; micro_batch × accumulation × processes is the effective
    batch."""
    gradient_checkpointing: bool
    """Whether layers keep only their input and are computed again in the backward pass."""
    recomputed_layers: int | None = None
    """How many, from the first, when not all of them."""
    unpacked_layers: int = 0
    """Layers, from the first, whose frozen weights are kept in 16 bits because there is memory for it (`fused`)."""
    engine: Engine = "stock"
    """`fused`: codetune's own forward and backward pass on the same weights; `stock`: the libraries' modules."""
    gpu_memory_gib: float | None = None
    """What the process may take of the card, GiB; None for all of it."""
    processes: int = 1
    """Processes that train together, each on a GPU of its own, on its share of every batch."""

    @property
    def effective_batch(self) -> int:
        """Sequences in one optimizer step."""
        return self.micro_batch * self.accumulation * self.processes

    @property
    def batch_in_words(self) -> str:
        """`4 × 1`, `2 × 1 in 2 processes`."""
        together = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.micro_batch} × {self.accumulation}{together}"

    @property
    def checkpointing_in_words(self) -> str:
        """`no gradient checkpointing`, `with gradient checkpointing`, `with gradient checkpointing of 12 layers`."""
        how = "with" if self.gradient_checkpointing else "no"
        some = "" if self.recomputed_layers is None else f" of {self.recomputed_layers} layers"
        return f"{how} gradient checkpointing{some}"

    @property
    def fingerprint(self) -> str:
        without_bits = {"gpu_memory_gib", "unpacked_layers"}  # the same numbers, only kept otherwise
        return digest.of_json(self.model_dump(mode="json", exclude=without_bits))


class Prediction(Record):
    """What the plan is expected to cost. None where nothing is known to predict from."""

    peak_gib: float
    """Peak memory of the training process on the device (GPU memory as torch counts it, or resident memory on a CPU),
    GiB."""
    needed_gib: float = 0
    """What the device must have for that, GiB: on a GPU also the CUDA context and what the allocator cannot use."""
    optional_gib: float = 0
    """The part of it that unpacked layers take: training does without when memory runs out."""
    tokens_per_second: float | None
    seconds: float | None
    """Wall time of all optimizer steps."""
    disk_gib: float
    """What the run writes to the store and to the hub's cache."""


class Check(Record):
    """One thing that preflight looked at."""

    name: str
    verdict: Literal["ok", "warning", "refused"]
    finding: str
    remedy: str = ""


class PreflightReport(Handle):
    """`plan.json`: the plan; `probe.json`: what was seen of the machine (a measurement, no part of the fingerprint)."""

    measurements: ClassVar[tuple[str, ...]] = ("probe.json",)

    machine: str
    """The machine in words: `NVIDIA T4, 15 GiB, sm_75, driver 580.65` or `CPU, 2 cores, 24 GiB`."""
    plan: Plan
    prediction: Prediction
    checks: tuple[Check, ...]

    @property
    def known_by(self) -> frozenset[str]:
        return frozenset({self.fingerprint, self.plan.fingerprint})

    @property
    def summary(self) -> str:
        plan = self.plan
        return (
            f"{self.machine}: {plan.precision}, {'fused engine, ' if plan.engine == 'fused' else ''}"
            f"batch {plan.batch_in_words}, {plan.checkpointing_in_words}, "
            f"{self.prediction.peak_gib:.1f} GiB expected"
        )


# --- quantization ---------------------------------------------------------------------------------------------


class WeightGroup(Record):
    """Some of a model's tensors, before and after."""

    tensors: int
    parameters: int
    original_bytes: int
    bytes: int
    """In the artifact, scales and other statistics of the quantization included."""


class QuantizedBase(Handle):
    """The base model with quantized linear layers, in the form that `from_pretrained` loads: `config.json` with a
    `quantization_config`, safetensors as bitsandbytes serializes them, tokenizer, generation configuration, licence."""

    quantization: Literal["int8", "nf4"]
    linear: WeightGroup
    """Weights of linear layers: quantized."""
    other: WeightGroup
    """Embeddings, output layer, norms, biases: as published."""

    @property
    def original_bytes(self) -> int:
        return self.linear.original_bytes + self.other.original_bytes

    @property
    def weight_bytes(self) -> int:
        return self.linear.bytes + self.other.bytes

    @property
    def summary(self) -> str:
        sizes = f"{self.original_bytes / 1e6:,.1f} → {self.weight_bytes / 1e6:,.1f} MB"
        return f"{self.linear.tensors} linear layers in {self.quantization}, weights {sizes}"


# --- training -------------------------------------------------------------------------------------------------


class Checkpoint(Handle):
    """`adapter/`: the trained LoRA adapter in PEFT's form (safetensors, fp32); `metrics.parquet`: a row per optimizer
    step: `step, loss, learning_rate, grad_norm, tokens, seconds, tokens_per_second, memory_gib`, and on a GPU
    `gpu_temperature_c, gpu_power_w, gpu_utilization`; `tensorboard/`: the same as event files."""

    measurements: ClassVar[tuple[str, ...]] = ("metrics.parquet", "tensorboard/*", "tensorboard/*/*")

    steps: int
    tokens: int
    """Tokens trained on, padding not counted."""
    first_loss: float
    """Mean training loss of the first tenth of the steps, nats per token."""
    last_loss: float
    """Mean training loss of the last tenth of the steps, nats per token."""
    trainable_parameters: int
    total_parameters: int
    peak_memory_gib: float
    """Highest memory of the training process on the device (GPU memory, or resident memory on a CPU)."""
    step_seconds: float
    """Median wall time of one optimizer step."""
    tokens_per_second: float
    """Median over the steps, padding not counted."""
    resumed_from: int | None = None
    """The step of the checkpoint that the last process started from; None when it started from the beginning."""
    fallbacks: tuple[str, ...] = ()
    """Where memory ran out and with what training continued: `out of memory at step 37 with 4 × 1: continued with
    2 × 2`."""

    @property
    def summary(self) -> str:
        return (
            f"{self.steps} steps, loss {self.first_loss:.3f} → {self.last_loss:.3f}, "
            f"{self.tokens_per_second:,.0f} tokens/s, peak {self.peak_memory_gib:.1f} GiB"
        ) + (f"; {self.fallbacks[-1]}" if self.fallbacks else "")


# --- exporting ------------------------------------------------------------------------------------------------


class Comparison(Record):
    """How far the logits of a reloaded export lie from those of the trained model, on held-out text."""

    against: str
    """What was compared with what, in words."""
    largest_difference: float
    """Largest absolute difference of a logit."""
    bound: float
    """What was allowed."""
    positions: int
    """Token positions compared."""


class ExportedModel(Handle):
    """`adapter/`: the LoRA adapter for `peft`; `merged/`: the whole model in fp16 for `transformers`, absent when not
    asked for, with tokenizer and generation configuration; both with model card. `lineage.json`: where it comes from
    (`artifacts.lineage`)."""

    measurements: ClassVar[tuple[str, ...]] = ("lineage.json",)

    adapter_comparison: Comparison
    merged_comparison: Comparison | None
    adapter_bytes: int
    merged_bytes: int

    @property
    def summary(self) -> str:
        sizes = f"adapter {self.adapter_bytes / 1e6:.1f} MB"
        if self.merged_bytes:
            sizes += f", merged model {self.merged_bytes / 1e6:,.1f} MB"
        compared = [self.adapter_comparison, *([self.merged_comparison] if self.merged_comparison else [])]
        return f"{sizes}; reloaded, logits within {max(one.largest_difference for one in compared):.1e}"


# --- generation -----------------------------------------------------------------------------------------------

Domain = Literal["held_out", "kept"]
"""Where an item is from: the run's own held-out repositories, or code from outside what was trained on."""


class GenerationSpeed(Record):
    """How fast greedy answers were made: a reading, by wall time, start-up included."""

    engine: Engine
    """What computed them: the plan's, unless it could not."""
    tokens_per_second: float
    completions_per_second: float

    @property
    def summary(self) -> str:
        return f"{self.tokens_per_second:,.0f} tokens/s, {self.completions_per_second:,.1f} completions/s"


class FunctionalSuite(Record):
    """A suite of problems with tests, as it was put to the models."""

    name: str
    fingerprint: str
    """Over the problems."""
    problems: int
    instructed: bool = False
    """Whether the problems were put as instructions, in the model's own template."""


class Overlap(Record):
    """Something to be asked that stands in the training data, word for word or nearly; it was left out."""

    domain: str
    """`held_out`, `kept`, or a functional suite's name."""
    item: str
    part: str
    kind: Literal["exact", "near"]
    document: str
    """The training file that holds the most of it."""
    share: float
    """Of the part's runs of five tokens, in that file."""


class Generations(Handle):
    """What the models made, not scored yet. `losses.parquet`: a row per chunk: `domain, repo, path, language, chunk,
    tokens` and the summed loss in nats of each side, `base, again, tuned` (`again`: base a second time, null where not
    measured). `completions.parquet`: a row per prompt: `domain, suite, item, repo, path, language, line, prompt,
    suffix, truth` and each side's answer; of a functional suite's problem `path` is its name and `repo` that of the
    problem that it is a variant of. `problems/<suite>.jsonl`: functional suites as they were asked."""

    notes: tuple[str, ...] = ()
    """What was not measured and why, in sentences."""
    quantization: Quantization
    """What both models' base weights were quantized to."""
    losses: int
    """Chunks."""
    completions: int
    """Prompts."""
    functional: tuple[FunctionalSuite, ...] = ()
    contaminated: tuple[Overlap, ...] = ()
    """What stands in the training data and was therefore not asked."""
    looked_at: dict[str, int] = {}
    """Files or problems that were looked for there, by domain."""
    speed: GenerationSpeed | None = None
    """None when nothing was generated."""

    @property
    def summary(self) -> str:
        answers = f", {self.completions:,} answers of each at {self.speed.summary}" if self.speed else ""
        return f"base, base again and tuned: loss of {self.losses:,} chunks{answers}"


# --- execution ------------------------------------------------------------------------------------------------


class Protection(Record):
    """What the sandbox achieves on this machine, as its probe found."""

    layers: dict[str, str] = {}
    """Layers that hold (`landlock`, `seccomp`, `limits`, `user`, `namespaces`), each with a word on how."""
    level: Literal["strong", "weak", "none"]
    """`strong`: every required layer holds and the probe's attempts were refused."""
    sufficient: bool
    """Above the floor: model-written code may run."""
    problem: str = ""
    """What is missing, in words."""

    @property
    def summary(self) -> str:
        held = "; ".join(f"{name}: {text}" for name, text in self.layers.items()) or "no layer holds"
        return f"{self.level} ({held})" + (f", {self.problem}" if self.problem else "")


class Executions(Handle):
    """What became of the programs that the models wrote. `verdicts.parquet`: a row per problem and side: `suite, item`
    (as in the generations), `task_id, side, passed, outcome, reason`; `runs.parquet`: a row per program that was run:
    `suite, task_id, completion, detail` (what the sandbox said), `seconds`."""

    measurements: ClassVar[tuple[str, ...]] = ("runs.parquet",)

    protection: Protection
    """What held them in check."""
    programs: int
    """Run; what several sides wrote alike, once."""
    problems: int
    """Of all suites."""
    passed: int
    """Problems that the tuned model solved."""
    notes: tuple[str, ...] = ()
    """Tests that no program can pass, in sentences."""

    @property
    def summary(self) -> str:
        return (
            f"{self.programs:,} programs in the sandbox ({self.protection.level}); "
            f"tuned solves {self.passed:,} of {self.problems:,} problems"
        )


# --- evaluation -----------------------------------------------------------------------------------------------


Question = Literal["learned", "kept"]
"""What a figure is asked about: did the model learn this code, did it keep what it could do?"""


class Metric(Record):
    """One figure of base and tuned on the same items, with the interval of their paired difference."""

    name: str
    """`loss`, `perplexity`, `line_exact_match`, `line_edit_similarity`, `fim_exact_match`, `block_exact_match` on
    held-out code; the same after `kept_` on code from elsewhere; `kept_<suite>_pass` of a functional suite."""
    title: str
    """The figure in words, with its unit: `Held-out loss, nats per token`."""
    question: Question = "learned"
    """What the figure is asked about."""
    better: Better
    base: float
    tuned: float
    difference: float
    """tuned − base."""
    low: float | None
    """Lower end of the 95 % interval of the difference; None, as `high`, where there is no bound: a single repository
    says nothing about how repositories differ."""
    high: float | None
    smallest_detectable: float | None = None
    """The true difference that would have been shown in 80 of 100 such comparisons; None where there is no interval."""
    margin: float | None = None
    """The loss of quality that is put up with, fixed before the run, in the figure's unit; None for none."""
    items: int
    clusters: int
    """Repositories, or parent problems, that the interval's draws took or left out."""
    floor: float | None = None
    """Of outcomes that are 0 or 1: a more careful lower end, which `kept` is judged by beside the interval."""

    @property
    def interval(self) -> str:
        """The 95 % interval in brackets."""
        if self.low is None or self.high is None:
            return "(too few repositories for an interval)"
        return f"[{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def gain(self) -> tuple[float, float] | None:
        """The interval's ends, turned so that more is better; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return improvement(self.low, self.high, self.better)

    @property
    def verdict(self) -> Verdict:
        """What the interval says against the margin."""
        return verdict(self.low, self.high, better=self.better, margin=self.margin or 0.0, floor=self.floor)


class Completion(Record):
    """One prompt with the truth and what both models made of it."""

    kind: str
    """The suite: `line`, `fim`, `block`, or a functional suite's name."""
    domain: Domain = "held_out"
    repo: str
    path: str
    prompt: str
    """The text before the gap (its end, where it is long)."""
    suffix: str
    """The text after the gap; empty for next-line completion."""
    truth: str
    base: str
    tuned: str
    chosen: Literal["best", "worst", "random"] = "random"
    """Why it is shown: what the tuned model won or lost most by, or the seed."""
    base_score: float | None = None
    """Edit similarity to the truth, or 1 for a program that passed."""
    tuned_score: float | None = None
    base_reason: str = ""
    """What became of the program, where it is one."""
    tuned_reason: str = ""


class Noise(Record):
    """Base against base: what two runs of the same model differ by."""

    name: str
    """The metric's."""
    title: str
    items: int
    changed: int
    """Items with another answer, or another loss by more than a thousandth of a nat per token."""
    difference: float
    """Of the metric, second run − first."""


class Breakdown(Record):
    """A figure for one language or one repository."""

    metric: str
    by: Literal["language", "repository"]
    name: str
    items: int
    base: float
    tuned: float


class Share(Record):
    """Problems that one model solved."""

    passed: int
    low: float
    """Lower end of Wilson's 95 % interval of the share; of the models alone, without pairing."""
    high: float
    reasons: dict[str, int]
    """Programs by what became of them: `passed`, `wrong answer`, `exception: NameError`; most frequent first."""


class FunctionalResult(Record):
    """One functional suite: how many problems each model solved. The difference is the metric `kept_<suite>_pass`."""

    suite: str
    problems: int
    base: Share
    tuned: Share
    gained: int
    """Problems that only the tuned model solved."""
    lost: int
    """Problems that only the base solved."""
    p: float
    """McNemar's exact test of `gained` against `lost`."""


class EvaluationReport(Handle):
    """`scores.parquet`: a row per answer and score (`domain, suite, item, repo, language, score, base, again, tuned`),
    made from generations and executions alone; `metrics.json`: the figures with their margins."""

    metrics: tuple[Metric, ...]
    noise: tuple[Noise, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not measured and why, in sentences."""
    samples: tuple[Completion, ...]
    """Completions to look at: the best, the worst, and some chosen by seed."""
    quantization: Quantization
    """What both models' base weights were quantized to."""
    generation: GenerationSpeed | None = None
    """None when nothing was generated."""
    functional: tuple[FunctionalResult, ...] = ()
    protection: str = ""
    """What held model-written programs in check, in words; empty when none was run."""

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)

    def judged(self, question: Question) -> list[Metric]:
        """The figures that answer a question. Perplexity says what the loss says."""
        return [one for one in self.metrics if one.question == question and not one.name.endswith("perplexity")]

    @property
    def summary(self) -> str:
        loss = self.metric("loss")
        kept = self.judged("kept")
        judged = f"; kept {sum(one.verdict in ('kept', 'learned') for one in kept)} of {len(kept)}" if kept else ""
        change = f"difference {loss.difference:+.4f} {loss.interval}"
        return f"held-out loss {loss.base:.4f} → {loss.tuned:.4f}, {change}{judged}"


# --- reporting ------------------------------------------------------------------------------------------------


class RunReport(Handle):
    """`report.html`: one self-contained page about the whole run; `report.md`: the same for the dashboard;
    `figures.json`: the key figures at its head."""

    verdict: str
    """The outcome in one sentence."""

    @property
    def summary(self) -> str:
        return self.verdict
