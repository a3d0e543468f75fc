"""Small tokenizers of the two kinds, learned from a few lines, with the ids and names of real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "def add(first, second):\n    return first + second\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
    "for item in items:\n    if item is not None:\n        print(item)\n",
]
FIM = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")


QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>")


def code_llama(folder: Path, *, fim: bool = True, size: int = 32016) -> Path:
    """A SentencePiece-style BPE with Code Llama's ids: `<unk> <s> </s>`, bytes, pieces, FIM tokens from 32007 on."""
    marks = FIM if fim else tuple(f"<other{n}>" for n in range(4))
    return sentencepiece(folder, names=(*marks, *(f"<spare{n}>" for n in range(5))), size=size)


def sentencepiece(
    folder: Path, *, bos: str = "<s>", eos: str = "</s>", names: tuple[str, ...] = (), size: int | None = None
) -> Path:
    """A BPE with byte fallback whose texts begin with BOS. `size`: of the vocabulary, `names` at its end."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    learner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, max_token_length=5, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", bos, eos, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    pieces = list(dict.fromkeys(pieces))
    pieces += [f"<filler{n}>" for n in range((size or 0) - len(names) - len(pieces))]
    vocabulary = {name: index for index, name in enumerate(pieces)}
    model = models.BPE(
        vocabulary, [tuple(m) for m in learned["merges"]], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    added = ["<unk>", bos, eos, *names]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in added])
    return _save(tokenizer, folder, {"bos_token": bos, "eos_token": eos, "unk_token": "<unk>"})


def byte_level(
    folder: Path,
    *,
    names: tuple[str, ...] = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    bos: str | None = None,
    eos: str = "<|endoftext|>",
    template: bool = False,
    **settings: Any,
) -> Path:
    """A byte-level BPE as Qwen's: NFC, no token at the beginning, FIM tokens that are not marked as special.

    Args:
        bos: a token that is named as BOS; with `template` texts begin with it.
        settings: further ones of `tokenizer_config.json`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, max_token_length=5, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([eos])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    if bos:
        tokenizer.add_special_tokens([bos])
    if bos and template:
        one = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), one])
    return _save(tokenizer, folder, {"bos_token": bos, "eos_token": eos, "unk_token": None, **settings})


def _save(tokenizer: Tokenizer, folder: Path, settings: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
