"""Text to token ids and back, exactly: what goes in comes out byte for byte.

A model's `tokenizer.json` is read, but only its vocabulary and merges are used as they are. Around them stands what a
body of source code needs and what the tokenizer classes of transformers do not give:

- Nothing in the text is a command. A literal `</s>`, `<PRE>` or `<FILL_ME>` in a source file is plain text, and no call
  changes how a later one tokenizes (infilling does, with transformers' Code Llama tokenizer).
- Leading spaces survive: SentencePiece puts one space before a text, and so does `encode`, also where the text begins
  with spaces already. (transformers 5 rebuilds Code Llama's tokenizer with `Metaspace(prepend_scheme="first")`, which
  tokenizes `x` and ` x` alike.)
- The character `▁` (U+2581), which SentencePiece uses for a space, survives as byte tokens.
- Text is not normalized to NFC.

Two kinds are known: SentencePiece style (`▁`, byte fallback: Code Llama, Llama 2, Mistral) and byte-level BPE (GPT-2,
StarCoder, Qwen). Of another kind, or where a text does not survive, errors say so; nothing is changed silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

# SentencePiece style of Code Llama; StarCoder; Qwen.
_FIM_NAMES = (
    ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
)


class Unrepresentable(Exception):  # noqa: N818 - a finding about a text
    """The vocabulary has no tokens that give this text back."""


@dataclass(frozen=True, eq=False)
class CodeTokenizer:
    """A vocabulary with what is needed to use it exactly. Use `encode` and `decode`."""

    rust: Tokenizer
    """The model without special tokens and without a space put before the text."""
    pieces: tuple[bytes, ...]
    """What each id stands for; empty for special tokens and for ids that stand for nothing."""
    ids: dict[str, int]
    """Special tokens by name."""
    bos: int | None
    """Id of the token that begins every sequence; None where the model is used without."""
    eos: int | None
    """Id of the token that ends a document; None where the model has none."""
    leading_space: bool
    """Whether a space is put before a text that begins a document (SentencePiece's dummy prefix)."""
    space_bytes: tuple[int, ...] | None
    """The byte tokens that spell `▁`, where `▁` itself stands for a space; None where it needs no care."""
    description: str = field(repr=False)
    """What `rust` was made from, JSON."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to other processes as the text that it is made from; each makes it once."""
        values = (self.pieces, tuple(self.ids.items()), self.bos, self.eos, self.leading_space, self.space_bytes)
        return _arrived, (self.description, *values)

    @property
    def vocabulary_size(self) -> int:
        """Highest id plus one."""
        return len(self.pieces)


def load_tokenizer(folder: Path) -> CodeTokenizer:
    """The tokenizer of a model folder (`tokenizer.json`, or anything that transformers can convert to it).

    Raises:
        InputError: there is none, it cannot be read, or it is of another kind than the two known.
    """
    from tokenizers import Tokenizer

    # Said explicitly, or the library warns on stderr as soon as the process forks after a batch was encoded.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    description = _read_description(folder)
    settings = _settings(folder)
    kept, special = _split_added(description["added_tokens"])
    byte_level = _uses(description, "ByteLevel")
    leading_space = not byte_level and _puts_space(description)
    (_simplify_byte_level if byte_level else _simplify_sentencepiece)(description, folder)
    vocabulary = _vocabulary(description["model"])
    for name in (_name(settings.get(f"{role}_token")) for role in ("bos", "eos", "unk", "pad")):
        if name in vocabulary:
            special.setdefault(name, vocabulary[name])
    description.update(added_tokens=kept, post_processor=None, decoder=None, truncation=None, padding=None)
    bos = special.get(_name(settings.get("bos_token")))
    written = json.dumps(description)
    return CodeTokenizer(
        rust=Tokenizer.from_str(written),
        pieces=_pieces(vocabulary, kept, special, byte_level),
        ids=special,
        bos=None if settings.get("add_bos_token") is False else bos,
        eos=special.get(_name(settings.get("eos_token"))),
        leading_space=leading_space,
        space_bytes=None if byte_level else _spelled(vocabulary),
        description=written,
    )


@lru_cache(maxsize=2)
def _arrived(
    description: str, pieces: tuple[bytes, ...], ids: tuple[tuple[str, int], ...], *others: Any
) -> CodeTokenizer:
    from tokenizers import Tokenizer

    bos, eos, leading_space, space_bytes = others
    rust = Tokenizer.from_str(description)
    return CodeTokenizer(rust, pieces, dict(ids), bos, eos, leading_space, space_bytes, description)


def encode(tokenizer: CodeTokenizer, text: str, *, continues: bool = False) -> list[int]:
    """The ids of a text, without special tokens; text that looks like a special token is encoded as text.

    Args:
        continues: the text goes on from other text (a suffix, a middle, a completion), so that no space is put before
            it. Decode with the same value.

    Raises:
        Unrepresentable: the vocabulary cannot give the text back.
    """
    found = encode_batch(tokenizer, [text], continues=continues)[0]
    if found is None:
        raise Unrepresentable(f"the tokenizer cannot represent a text of {len(text)} characters exactly")
    return found


def encode_batch(tokenizer: CodeTokenizer, texts: Sequence[str], *, continues: bool = False) -> list[list[int] | None]:
    """Like `encode` for many texts at once, on all cores. None where a text cannot be represented."""
    lead = " " if tokenizer.leading_space and not continues else ""
    parts = [_parts(tokenizer, lead + text if text else "") for text in texts]
    encodings = tokenizer.rust.encode_batch_fast([part for some in parts for part in some], add_special_tokens=False)
    encoded = iter([encoding.ids for encoding in encodings])
    results: list[list[int] | None] = []
    for text, some in zip(texts, parts, strict=True):
        ids = next(encoded)
        for _ in some[1:]:
            ids += [*(tokenizer.space_bytes or ()), *next(encoded)]
        exact = _raw(tokenizer, ids) == (lead + text if text else "").encode()
        results.append(ids if exact else None)
    return results


def decode(tokenizer: CodeTokenizer, ids: Iterable[int], *, continues: bool = False) -> str:
    """The text of some ids; special tokens are left out, bytes that are no UTF-8 are shown as U+FFFD."""
    return decode_bytes(tokenizer, ids, continues=continues).decode(errors="replace")


def decode_bytes(tokenizer: CodeTokenizer, ids: Iterable[int], *, continues: bool = False) -> bytes:
    """Like `decode`, as the bytes that the ids stand for, which may begin or end within a character."""
    raw = _raw(tokenizer, ids)
    return raw.removeprefix(b" ") if tokenizer.leading_space and not continues else raw


@dataclass(frozen=True)
class FimTokens:
    """The ids that mark the parts of a fill-in-the-middle sequence."""

    prefix: int
    suffix: int
    middle: int
    end: int

    @classmethod
    def of(cls, tokenizer: CodeTokenizer) -> FimTokens:
        """The marks of this vocabulary.

        Raises:
            InputError: it has none.
        """
        if found := cls.find(tokenizer):
            return found
        raise InputError(
            "the model's tokenizer has no fill-in-the-middle tokens",
            field="tokenization.format",
            remedy="use tokenization.format=causal, or a model with "
            + ", ".join(f"{names[0]}…" for names in _FIM_NAMES),
        )

    @classmethod
    def find(cls, tokenizer: CodeTokenizer) -> FimTokens | None:
        """The marks of this vocabulary, or None where it has none."""
        for names in _FIM_NAMES:
            if all(name in tokenizer.ids for name in names):
                return cls(*(tokenizer.ids[name] for name in names))
        return None


def fim_prompt(fim: FimTokens, bos: int | None, prefix_ids: Sequence[int], suffix_ids: Sequence[int]) -> list[int]:
    """`BOS <PRE> prefix <SUF> suffix <MID>`: what the model continues with the middle and `<EOT>`.

    As Code Llama was trained: encode the prefix as the beginning of a text and the suffix with `continues=True`,
    and decode the middle with `continues=True`.
    Source: `infilling_prompt_tokens` in https://github.com/meta-llama/codellama/blob/main/llama/generation.py.
    """
    start = [] if bos is None else [bos]
    return [*start, fim.prefix, *prefix_ids, fim.suffix, *suffix_ids, fim.middle]


def _parts(tokenizer: CodeTokenizer, text: str) -> list[str]:
    """The text cut where `▁` must be spelled in bytes."""
    return text.split(SPACE) if tokenizer.space_bytes else [text]


def _raw(tokenizer: CodeTokenizer, ids: Iterable[int]) -> bytes:
    pieces = tokenizer.pieces
    size = len(pieces)
    return b"".join([pieces[index] for index in ids if index < size])


# --- reading tokenizer.json -----------------------------------------------------------------------------------


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else _converted(folder)
        description: dict[str, Any] = json.loads(text)
        description["added_tokens"] = description.get("added_tokens") or []
        _vocabulary(description["model"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no readable tokenizer ({error})",
            field="model.name",
            remedy="get the model's tokenizer files again",
        ) from error
    return description


def _converted(folder: Path) -> str:
    """`tokenizer.json` made by transformers from `tokenizer.model` or `vocab.json` and `merges.txt`."""
    from transformers import AutoTokenizer

    try:
        made = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return str(made.backend_tokenizer.to_str())
    except Exception as error:  # the library raises many kinds for a folder without a tokenizer
        raise InputError(
            f"{folder} holds no tokenizer that can be used ({str(error).splitlines()[0] if str(error) else error!r})",
            field="model.name",
            remedy="put the model's tokenizer.json beside its config.json",
        ) from error


def _settings(folder: Path) -> dict[str, Any]:
    """Names of the special tokens, from the files that may hold them; the later file wins."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            settings.update({key: value for key, value in found.items() if value is not None})
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is not readable ({error})", field="model.name", remedy="get the model's tokenizer files again"
            ) from error
    return settings


def _name(token: Any) -> str:
    """A special token is written as its text or as an object that holds it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    entries = model["vocab"]
    if isinstance(entries, list):  # Unigram: pairs of piece and score
        return {piece: index for index, (piece, _) in enumerate(entries)}
    return dict(entries)


def _split_added(added: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Added tokens that stand for text (runs of white space, as in CodeGen), and the others by name.

    `special` in the file is no guide: Qwen's `<|fim_prefix|>` is not marked so.
    """
    kept = [token for token in added if token["content"].isspace() and not token.get("special")]
    others = {token["content"]: token["id"] for token in added if token not in kept}
    return kept, others


def _uses(part: Any, kind: str) -> bool:
    """Whether a component of this type stands anywhere in the description."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(_uses(value, kind) for key, value in part.items() if key != "vocab")
    return isinstance(part, list) and any(_uses(item, kind) for item in part if isinstance(item, dict))


def _puts_space(description: dict[str, Any]) -> bool:
    if _uses(description.get("normalizer"), "Prepend"):
        return True
    metaspace = description.get("pre_tokenizer") or {}
    return metaspace.get("type") == "Metaspace" and metaspace.get("prepend_scheme", "always") != "never"


def _simplify_sentencepiece(description: dict[str, Any], folder: Path) -> None:
    """Leave only the exchange of spaces for `▁`; `encode` puts the leading one itself."""
    if SPACE not in _vocabulary(description["model"]):
        raise InputError(
            f"the tokenizer in {folder} is neither of SentencePiece's style nor a byte-level BPE",
            field="model.name",
            remedy="use a model whose tokenizer gives every text back exactly, such as Code Llama, StarCoder or Qwen",
        )
    description["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    description["pre_tokenizer"] = None


def _simplify_byte_level(description: dict[str, Any], folder: Path) -> None:
    """Leave out Unicode normalization and the space before the text; both lose what was written."""
    del folder
    description["normalizer"] = None
    splitter = description.get("pre_tokenizer") or {}
    for part in (splitter, *splitter.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False


def _pieces(
    vocabulary: dict[str, int], kept: list[dict[str, Any]], special: dict[str, int], byte_level: bool
) -> tuple[bytes, ...]:
    size = 1 + max([*vocabulary.values(), *special.values(), *(token["id"] for token in kept)])
    pieces = [b""] * size
    spell = _byte_level_speller() if byte_level else _spell_sentencepiece
    for piece, index in vocabulary.items():
        pieces[index] = spell(piece)
    for token in kept:
        pieces[token["id"]] = token["content"].encode()
    for index in special.values():
        pieces[index] = b""
    return tuple(pieces)


def _spell_sentencepiece(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE, " ").encode()


def _byte_level_speller() -> Callable[[str], bytes]:
    """GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
    return lambda piece: bytes(table[char] for char in piece) if all(char in table for char in piece) else b""


def _spelled(vocabulary: dict[str, int]) -> tuple[int, ...] | None:
    names = [f"<0x{byte:02X}>" for byte in SPACE.encode()]
    return tuple(vocabulary[name] for name in names) if all(name in vocabulary for name in names) else None
