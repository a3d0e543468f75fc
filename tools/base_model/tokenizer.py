"""A BPE with byte fallback that behaves like Code Llama's SentencePiece model.

What it shares with the original: ids 0/1/2 for `<unk>`, `<s>`, `</s>`, then the 256 bytes; `▁` for a space
and one put before every text; no pre-tokenizer; digits apart; newline, tab and carriage return as bytes, so
that no token ever joins a newline with the indentation after it; `▁<PRE> ▁<SUF> ▁<MID> ▁<EOT>` as special
tokens, here the last four ids.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
PRE, SUF, MID, EOT = "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"
BASIC = [UNK, BOS, EOS]
INFILLING = [PRE, SUF, MID, EOT]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
ALPHABET = ["▁", *map(chr, range(33, 127))]

WORDS = Regex(r"▁▁+|▁?[A-Za-z_]+|[0-9]|[\n\r\t]|▁?[^A-Za-z_0-9▁\s]+|.")
"""Units inside which merges are learned: runs of spaces, words, single digits, punctuation."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn a vocabulary of exactly so many entries, special tokens included."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(WORDS, behavior="isolated")
    reserved = len(BASIC) + len(BYTES) + len(INFILLING)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - reserved,
        initial_alphabet=ALPHABET,
        limit_alphabet=len(ALPHABET),
        max_token_length=16,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merged = [piece for piece in pieces if len(piece) > 1]
    ordered = [*BASIC, *BYTES, *merged, *(piece for piece in pieces if len(piece) == 1), *INFILLING]
    if len(ordered) != vocabulary:
        raise ValueError(f"the corpus gave {len(ordered)} tokens, {vocabulary} were asked for: use more text")
    vocab = {piece: index for index, piece in enumerate(ordered)}
    return assemble(vocab, [tuple(merge) for merge in model["merges"]])


def assemble(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Put Llama's normalizer, decoder and template around a vocabulary."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=UNK, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocab[BOS])]
    )
    special = [AddedToken(token, normalized=False, special=True) for token in (*BASIC, *INFILLING)]
    tokenizer.add_special_tokens(special)
    return tokenizer


def without_leading_space(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that does not put a `▁` before the text: for text that continues other text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.normalizer = normalizers.Replace(" ", "▁")
    return copy


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": None,
        "prefix_token": PRE,
        "suffix_token": SUF,
        "middle_token": MID,
        "eot_token": EOT,
        "additional_special_tokens": INFILLING,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def characters_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    """Mean number of characters that one token stands for."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return sum(map(len, texts)) / sum(len(encoding.ids) for encoding in encodings)
