"""Pretraining: a small Llama, Muon for its matrices, AdamW for the rest, the rate going down to zero.

The text is encoded anew for every pass by background processes, so that a file is plain text in one pass and
infilling examples in another, while the accelerator works on the pass before.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from base_model.corpus import SourceFile, read_corpus
from base_model.tokenizer import BOS, EOS
from base_model.windows import EMPHASIS, write_pass

INTERMEDIATE_CHECKPOINT = 0.5
"""Share of the run after which the model is written for the first time, in case the rest is lost."""


@dataclass(frozen=True)
class TrainingConfig:
    """What the run reads."""

    hidden: int = 256
    layers: int = 8
    heads: int = 4
    mlp: int = 704
    context: int = 1024
    """Tokens in a training row."""
    batch: int = 64
    """Rows in an optimizer step."""
    steps: int = 17_000
    """Planned optimizer steps; the learning rate reaches zero there."""
    max_seconds: float = 1e9
    """Wall-clock limit: the schedule speeds up so that the rate reaches zero then at the latest."""
    passes: int = 10
    """Different encodings of the corpus to prepare; they are repeated if more are needed."""
    workers: int = 14
    """Processes that encode."""
    matrix_rate: float = 0.02
    """Peak learning rate of Muon."""
    vector_rate: float = 8e-3
    """Peak learning rate of AdamW: embedding and norms."""
    weight_decay: float = 0.03
    """Decoupled decay of the matrices, times the learning rate."""
    warm_up: float = 0.02
    """Share of the run over which the rate rises."""
    middle_weight: float = 3.0
    """Weight of the ids of infilled middles in the loss; all others have 1."""
    seed: int = 1


def build_model(config: TrainingConfig, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A fresh model in fp32 with Code Llama's traits at a small size."""
    torch.manual_seed(config.seed)
    llama = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        use_cache=False,
    )
    model = LlamaForCausalLM(llama)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data /= (2 * config.layers) ** 0.5
    return model


def orthogonalize(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Bring the singular values of each matrix near one by Newton-Schulz iterations (Keller Jordan's Muon).

    `matrices` is [n, rows, columns] with rows <= columns.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized; matrices of one shape are handled as one batch."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.shapes.setdefault((min(matrix.shape), max(matrix.shape)), []).append(matrix)
        self.orthogonalize = torch.compile(orthogonalize) if matrices[0].is_cuda else orthogonalize

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all matrices from their gradients."""
        group = self.param_groups[0]
        for shape, matrices in self.shapes.items():
            wide = [bool(matrix.shape[0] <= matrix.shape[1]) for matrix in matrices]
            gradient = torch.stack([m.grad if w else m.grad.T for m, w in zip(matrices, wide, strict=True)])
            momentum = self.state[matrices[0]].setdefault("momentum", torch.zeros_like(gradient))
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = self.orthogonalize(gradient.lerp(momentum, group["momentum"])) * (shape[1] / shape[0]) ** 0.5
            updates = [u if w else u.T for u, w in zip(update.unbind(), wide, strict=True)]
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, updates, alpha=-group["lr"])


def build_optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the (tied) embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    adam = torch.optim.AdamW(
        others, lr=config.vector_rate, betas=(0.9, 0.97), weight_decay=0.0, fused=others[0].is_cuda
    )
    return [Muon(matrices, config.matrix_rate, config.weight_decay), adam]


def rate_factor(progress: float, warm_up: float) -> float:
    """Linear warm-up, then linearly down to zero."""
    return min(progress / warm_up, (1 - progress) / (1 - warm_up)) if progress < 1 else 0.0


class Passes:
    """Encodings of the corpus, prepared in the background and read in order."""

    def __init__(self, files: list[SourceFile], tokenizer: Tokenizer, folder: Path, config: TrainingConfig) -> None:
        self.folder, self.config = folder, config
        folder.mkdir(parents=True, exist_ok=True)
        self.pool = multiprocessing.get_context("fork").Pool(config.workers)
        self.pending = []
        for number in range(config.passes):
            for worker in range(config.workers):
                share, seed = files[worker :: config.workers], 1000 * number + worker
                path = self.path(number, worker)
                if not path.exists():
                    task = (share, tokenizer, config.context, seed, path)
                    self.pending.append(self.pool.apply_async(write_pass, task))

    def path(self, number: int, worker: int) -> Path:
        return self.folder / f"pass-{number:02d}-{worker:02d}.npy"

    def batches(self, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ids and whether they belong to a middle, both [batch, context + 1], without end."""
        generator = np.random.default_rng(self.config.seed)
        number = 0
        while True:
            paths = [self.path(number % self.config.passes, worker) for worker in range(self.config.workers)]
            while not all(path.exists() for path in paths):
                self.raise_failures()
                time.sleep(0.1)
            rows = np.concatenate([np.load(path) for path in paths])
            print(f"pass {number}: {len(rows)} rows of {rows.shape[1]} ids", flush=True)
            ids = torch.from_numpy(rows.astype(np.int16)).to(device)
            order = torch.from_numpy(generator.permutation(len(rows))).to(device)
            for chosen in order.split(self.config.batch):
                if len(chosen) == self.config.batch:
                    marked = ids[chosen].long()
                    yield marked & (EMPHASIS - 1), marked < 0
            number += 1

    def raise_failures(self) -> None:
        """Raise what a worker raised; otherwise the trainer would wait for its file for ever."""
        for task in self.pending:
            if task.ready():
                task.get()

    def close(self) -> None:
        self.pool.terminate()


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model in fp16 with its configuration and generation configuration."""
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half = half.half()
    half.config.use_cache = True
    half.config.dtype = torch.float16
    half.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=model.config.eos_token_id
    )
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def train(corpus: Path, folder: Path, data: Path, config: TrainingConfig) -> LlamaForCausalLM:
    """Train a model with the tokenizer in `folder`; write it there, half way and at the end."""
    start = time.monotonic()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    passes = Passes(read_corpus(corpus), tokenizer, data, config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(config, tokenizer).to(device)
    figures = run_steps(model, passes, folder, config)
    passes.close()
    save_model(model, folder)
    figures |= {"config": asdict(config), "parameters": model.num_parameters()}
    figures |= {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU"}
    figures["seconds_in_all"] = round(time.monotonic() - start, 1)
    (folder / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    return model


def run_steps(model: LlamaForCausalLM, passes: Passes, folder: Path, config: TrainingConfig) -> dict[str, object]:
    """The loop itself; returns its figures."""
    device = model.device.type
    torch.set_float32_matmul_precision("high")
    optimizers = build_optimizers(model, config)
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]

    def loss_of(ids: Tensor, middle: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        each = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        weights = 1 + (config.middle_weight - 1) * middle[:, 1:].flatten().float()
        return (each * weights).sum() / weights.sum()

    compiled = torch.compile(loss_of) if device == "cuda" else loss_of
    batches = passes.batches(device)
    losses: list[tuple[int, float]] = []
    started, saved, step, progress = 0.0, False, 0, 0.0
    recent: list[Tensor] = []
    while progress < 1:
        loss = compiled(*next(batches))
        loss.backward()
        for optimizer, rate in zip(optimizers, base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(progress, config.warm_up)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.append(loss.detach())
        if step == 10:  # compiled by now
            started = time.monotonic()
        step += 1
        if step % 100 == 0 or step >= config.steps:
            losses.append((step, torch.stack(recent).mean().item()))
            recent = []
            seconds = time.monotonic() - started
            print(f"step {step} loss {losses[-1][1]:.4f} {seconds:.1f} s", flush=True)
            if not saved and progress > INTERMEDIATE_CHECKPOINT:
                save_model(model, folder)
                saved = True
        if step > 10:
            progress = max(step / config.steps, (time.monotonic() - started) / config.max_seconds)
    seconds = time.monotonic() - started
    tokens = step * config.batch * config.context
    return {"steps": step, "tokens": tokens, "seconds": round(seconds, 1), "losses": losses}
