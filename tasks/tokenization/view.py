"""What there is to see of tokenized text."""

from __future__ import annotations

from artifacts import figures
from artifacts.presentation import Block, Figure, Section, Table
from artifacts.rows import by_parts
from artifacts.schema import TokenizedDataset, TokenizedSplit

FORMATS = {
    "causal": "as it stands",
    "fim": "part of the training chunks rearranged to fill in the middle; held-out text as it stands",
    "instruct": "training chunks as answers to instructions, with loss on the answers; held-out text as it stands",
}


def sections(handle: TokenizedDataset) -> list[Section]:
    """Sizes of both sides, and how long the training chunks are."""
    columns = ("", "files", "left out", "chunks", "tokens", "padding", "bytes of text per token")
    rows = (_row("train", handle.train), _row("held out", handle.held_out))
    caption = f"Chunks of at most {handle.max_length} tokens, each from one file; text {FORMATS[handle.format]}."
    if handle.train.replay:
        replay, chunks = handle.train.replay, handle.train.chunks
        caption += f" {replay:,} of the {chunks:,} training chunks ({replay / chunks:.2%}) are general code (replay)."
    blocks: list[Block] = [Table(columns, rows, caption)]
    if handle.train.made:
        made = tuple((what, f"{count:,}") for what, count in handle.train.made.items())
        blocks.append(Table(("training chunks", ""), made, "What was made of them, and why not what was wanted."))
    return [Section("tokenization", "Tokens", (*blocks, _lengths(handle)))]


def _row(name: str, split: TokenizedSplit) -> tuple[str, ...]:
    dropped = ", ".join(f"{count} ({reason})" for reason, count in split.dropped.items()) or "0"
    per_token = f"{split.text_bytes / max(1, split.tokens):.2f}"
    share = f"{split.padding_share:.1%}"
    return name, f"{split.files:,}", dropped, f"{split.chunks:,}", f"{split.tokens:,}", share, per_token


def _lengths(handle: TokenizedDataset) -> Figure:
    import numpy as np
    import pyarrow.compute as pc

    counts = np.zeros(handle.max_length + 1, np.int64)
    with by_parts(handle.path / "train.parquet") as file:
        for batch in file.iter_batches(columns=["input_ids"]):
            counts += np.bincount(pc.list_value_length(batch.column(0)).to_numpy(), minlength=len(counts))
    edges = np.linspace(0, handle.max_length, 33).astype(int)
    bars = np.add.reduceat(counts[1:], np.unique(edges[:-1])) / max(1, counts.sum())
    with figures.drawing(7.2, 2.2) as figure:
        axes = figure.subplots()
        axes.bar(np.unique(edges[:-1]), bars * 100, width=handle.max_length / 34, align="edge", color=figures.TUNED)
        axes.set(xlabel="tokens in a chunk", ylabel="% of training chunks")
        full = counts[-1] / max(1, counts.sum())
        svg = figures.to_svg(figure)
    return Figure(svg, "svg", f"Lengths of training chunks; {full:.0%} are full", "How long the training chunks are")
