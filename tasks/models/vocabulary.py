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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import reading
from artifacts.errors import InputError
from tasks.models.architecture import read_config, vocabulary_size
from tasks.processes import bounded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"
MOST_PIECES = 1 << 21
"""Ids from here on are no tokens: the largest vocabularies have 262,144."""
TRIAL_SECONDS, TRIAL_LENGTH = 20, 2_000
"""Computing that a tokenizer may take for some texts of so many units; published ones take a tenth of a second."""
_FIELD = "model.name"
_REMEDY = "get the model's tokenizer files again"
MISSING = "put the model's tokenizer.json beside its config.json"
"""The remedy where a tokenizer cannot be made of other files."""
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


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
    """Id of the token that begins every sequence; None where the model is used without, as its tokenizer says."""
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
    """The tokenizer of a model folder (`tokenizer.json`, or what `tasks.models.conversion` makes of older files).

    Raises:
        InputError: there is none, it cannot be read, or it is of another kind than the two known.
    """
    with reading.blamed_on(folder / "tokenizer.json", field=_FIELD, remedy=_REMEDY):
        return make_tokenizer(folder, _read_description(folder))


def make_tokenizer(folder: Path, description: dict[str, Any]) -> CodeTokenizer:
    """The tokenizer of a well-formed `tokenizer.json`, and of the files beside it in a model folder."""
    from tokenizers import Tokenizer

    config = folder / "config.json"
    size = vocabulary_size(read_config(folder)) if config.exists() else None
    # Said explicitly, or the library warns on stderr as soon as the process forks after a batch was encoded.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    settings = _settings(folder)
    kept, special = _split_added(description["added_tokens"])
    byte_level = _uses(description, "ByteLevel")
    leading_space = not byte_level and _puts_space(description)
    begins = _puts_first(description.get("post_processor"), _name(settings.get("bos_token")))
    (_simplify_byte_level if byte_level else _simplify_sentencepiece)(description, folder)
    vocabulary = _vocabulary(description["model"])
    for name in (_name(settings.get(f"{role}_token")) for role in ("bos", "eos", "unk", "pad")):
        if name in vocabulary:
            special.setdefault(name, vocabulary[name])
    description.update(added_tokens=kept, post_processor=None, decoder=None, truncation=None, padding=None)
    description["model"]["dropout"] = None  # of merges, for training other models: the same text would give other ids
    _check_ids(folder, size, {**vocabulary, **{token["content"]: token["id"] for token in kept}}, special, settings)
    # Names that the model has no row for (Code Llama 34B's FIM tokens) are not there.
    special = {name: index for name, index in special.items() if size is None or index < size}
    bos = special.get(_name(settings.get("bos_token"))) if settings.get("add_bos_token", begins) else None
    written = json.dumps(description)
    return CodeTokenizer(
        rust=Tokenizer.from_str(written),
        pieces=_pieces(vocabulary, kept, special, byte_level),
        ids=special,
        bos=bos,
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
    given = [lead + text if text else "" for text in texts]
    # cut where `▁` must be spelled in bytes
    parts = [text.split(SPACE) if tokenizer.space_bytes else [text] for text in given]
    flat = [part for some in parts for part in some]
    try:
        encodings = tokenizer.rust.encode_batch_fast(flat, add_special_tokens=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how the library in Rust gives up; for Python no Exception
            raise
        raise InputError(
            f"the expressions of the model's tokenizer.json come to no end on some text ({error})",
            field=_FIELD,
            remedy="use a model whose tokenizer.json splits text in linear time, as published ones do",
        ) from error
    encoded = iter([encoding.ids for encoding in encodings])
    results: list[list[int] | None] = []
    for text, some in zip(given, parts, strict=True):
        ids = next(encoded)
        for _ in some[1:]:
            ids += [*(tokenizer.space_bytes or ()), *next(encoded)]
        results.append(ids if _raw(tokenizer, ids) == text.encode() else None)
    return results


def decode(tokenizer: CodeTokenizer, ids: Iterable[int], *, continues: bool = False) -> str:
    """The text of some ids; special tokens are left out, bytes that are no UTF-8 are shown as U+FFFD."""
    return decode_bytes(tokenizer, ids, continues=continues).decode(errors="replace")


def decode_bytes(tokenizer: CodeTokenizer, ids: Iterable[int], *, continues: bool = False) -> bytes:
    """Like `decode`, as the bytes that the ids stand for, which may begin or end within a character."""
    raw = _raw(tokenizer, ids)
    return raw.removeprefix(b" ") if tokenizer.leading_space and not continues else raw


def line_breaks(tokenizer: CodeTokenizer) -> set[int]:
    """The tokens with which a line ends."""
    return {index for index, piece in enumerate(tokenizer.pieces) if b"\n" in piece or b"\r" in piece}


def _raw(tokenizer: CodeTokenizer, ids: Iterable[int]) -> bytes:
    pieces = tokenizer.pieces
    size = len(pieces)
    return b"".join([pieces[index] for index in ids if index < size])


# --- reading tokenizer.json and what is beside it ---------------------------------------------------------------


def _is_token(value: Any) -> bool:
    return value is None or isinstance(value.get("content") if isinstance(value, dict) else value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | None)


_SETTINGS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys((f"{role}_token" for role in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")), _is_token),
    **dict.fromkeys((f"{role}_token" for role in ("prefix", "middle", "suffix", "eot", "fill")), _is_token),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces"), _is_flag),
    **dict.fromkeys(("legacy", "suffix_first", "use_default_system_prompt"), _is_flag),
    "split_special_tokens": lambda value: isinstance(value, bool),
    **dict.fromkeys(("tokenizer_class", "errors", "name_or_path"), _is_text),
    "chat_template": lambda value: (
        _is_text(value)
        or (
            isinstance(value, list)
            and all(isinstance(one, dict) and {"name", "template"} <= one.keys() for one in value)
        )
    ),
    "model_max_length": lambda value: value is None or (type(value) in (int, float) and value > 0),
    "sp_model_kwargs": lambda value: value is None or value == {},
    **dict.fromkeys(("padding_side", "truncation_side"), lambda value: value in ("left", "right")),
    "additional_special_tokens": lambda value: (
        value is None or (isinstance(value, list) and None not in value and all(map(_is_token, value)))
    ),
    "added_tokens_decoder": lambda value: (
        isinstance(value, dict)
        and all(map(str.isdecimal, value))
        and all(isinstance(one, dict) and _is_token(one) for one in value.values())
    ),
}
"""Settings of tokenizers, and whether a value can be one. Of others only transformers knows what they do."""


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    if path.exists():
        description = reading.read_object(path, field=_FIELD, remedy=_REMEDY)
    else:
        states = [one.stat() for one in sorted(folder.iterdir())]
        description = json.loads(_converted(folder, tuple((one.st_size, one.st_mtime_ns) for one in states)))
    problem = next(_malformed(description), None)
    if problem:
        raise InputError(f"{path} is no readable tokenizer: {problem}", field=_FIELD, remedy=_REMEDY)
    return description


def _malformed(description: dict[str, Any]) -> Iterator[str]:
    """What of a description is not of the form that the library writes, or stands for more than there can be. Fills in
    what older versions of it left out."""
    model = description.get("model")
    if not isinstance(model, dict):
        yield "it has no model"
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    dropout = model.get("dropout") if isinstance(model, dict) else None
    if dropout is not None and not (type(dropout) in (int, float) and 0 <= dropout <= 1):
        yield f"its dropout is {str(dropout)[:40]}"
    if isinstance(vocabulary, list):
        if not all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in vocabulary):
            yield "its vocabulary is no list of pieces with their scores"
    elif not isinstance(vocabulary, dict):
        yield "it has no vocabulary"
    elif not all(map(_is_id, vocabulary.values())):
        wrong = next((piece, index) for piece, index in vocabulary.items() if not _is_id(index))
        yield f"its piece {wrong[0][:40]!r} has the id {str(wrong[1])[:40]}"
    elif len(set(vocabulary.values())) < len(vocabulary):
        yield "two of its pieces have the same id"
    added = description["added_tokens"] = description.get("added_tokens") or []
    if not isinstance(added, list):
        yield "its added tokens are no list"
    for token in added:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content or not _is_id(token.get("id")):
            yield f"one of its added tokens is {str(token)[:80]}"
    for part in ("pre_tokenizer", "normalizer"):
        if not isinstance(description.get(part), dict | None):
            yield f"its {part} is no object"


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_PIECES


def _check_ids(
    folder: Path, size: int | None, pieces: dict[str, int], special: dict[str, int], settings: dict[str, Any]
) -> None:
    """Every id that a text can come to has its row in the model.

    Raises:
        InputError: one has not.
    """
    if size is None:
        return
    highest = max(pieces, key=pieces.__getitem__, default="")
    roles = {role: _name(settings.get(f"{role}_token")) for role in ("bos", "eos")}
    outside = [(f"the piece {highest[:40]!r}", pieces.get(highest, 0))]
    outside += [(f"the {role} token {name[:40]!r}", special.get(name, 0)) for role, name in roles.items()]
    for what, index in outside:
        if index >= size:
            raise InputError(
                f"the tokenizer in {folder} does not go with the model: {what} has the id {index:,}, and the "
                f"vocabulary of config.json has {size:,} tokens",
                field=_FIELD,
                remedy="get the tokenizer's files and config.json from the same place again",
            )


@lru_cache(maxsize=4)
def _converted(folder: Path, _state: tuple[tuple[int, int], ...]) -> str:
    """`tokenizer.json` made by transformers from `tokenizer.model` or `vocab.json` and `merges.txt`."""
    return str(bounded.ask("tasks.models.conversion:convert", folder, field=_FIELD, remedy=MISSING))


def try_out(folder: Path) -> None:
    """Find out whether a tokenizer's own expressions come to an end, in a process that may be ended.

    Raises:
        InputError: they do not, or it cannot be loaded.
    """
    if _has_expression(_read_description(folder).get("pre_tokenizer")):
        bounded.ask(
            "tasks.models.vocabulary:encode_trials",
            folder / "tokenizer.json",
            field=_FIELD,
            remedy="use a model whose tokenizer.json splits text in linear time, as published ones do",
            seconds=TRIAL_SECONDS,
        )
    path = folder / "tokenizer_config.json"
    settings = reading.read_object(path, field=_FIELD) if path.exists() else {}
    values = [one for value in settings.values() for one in (value if isinstance(value, list) else [value])]
    # a token that was not written by transformers
    is_doubtful = any(isinstance(one, dict) and "content" in one and "__type" not in one for one in values)
    if not _SETTINGS.keys() >= settings.keys() or is_doubtful:
        bounded.ask("tasks.models.vocabulary:load_trial", path, field=_FIELD, remedy=_REMEDY)


def load_trial(path: Path) -> None:
    """Whether transformers can use a tokenizer, as training will. Imports it."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)


def encode_trials(path: Path) -> None:
    """Long runs of few characters, which an expression that tries every division of them never comes to the end of."""
    tokenizer = load_tokenizer(path.parent)
    units = (*"aA1_ \t\n.'-é中\u0301", "ab", "a1", "a ", " \n", "a.")
    texts = [unit * TRIAL_LENGTH + end for unit in units for end in ("", "!", "a", " ", "\0")]
    tokenizer.rust.encode_batch_fast(texts, add_special_tokens=False)


def _has_expression(part: Any) -> bool:
    if isinstance(part, dict):
        return "Regex" in part or any(map(_has_expression, part.values()))
    return isinstance(part, list) and any(map(_has_expression, part))


def _settings(folder: Path) -> dict[str, Any]:
    """Names of the special tokens, from the files that may hold them; the later file wins."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            found = reading.read_object(folder / name, field=_FIELD, remedy=_REMEDY)
            wrong = [key for key, fits in _SETTINGS.items() if key in found and not fits(found[key])]
            if wrong:
                problem = f"its {wrong[0]} is {str(found[wrong[0]])[:60]}"
                raise InputError(f"{folder / name} cannot be used: {problem}", field=_FIELD, remedy=_REMEDY)
            settings.update({key: value for key, value in found.items() if value is not None})
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
    """Added tokens that stand for text (runs of white space, as in CodeGen), and special ones by name. Runs of
    SentencePiece's space are neither: they are pieces of the vocabulary, and Gemma names them once more.

    `special` in the file is no guide: Qwen's `<|fim_prefix|>` is not marked so.
    """
    kept = [token for token in added if token["content"].isspace() and not token.get("special")]
    others = [token for token in added if token not in kept and token["content"].strip(SPACE)]
    return kept, {token["content"]: token["id"] for token in others}


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


def _puts_first(processor: Any, token: str) -> bool:
    """Whether a tokenizer by itself begins a text with a token: its post-processor says so."""
    if not isinstance(processor, dict):
        return False
    first = next(iter(processor.get("single") or ()), None) if processor.get("type") == "TemplateProcessing" else None
    return first == {"SpecialToken": {"id": token, "type_id": 0}} or any(
        _puts_first(one, token) for one in processor.get("processors") or ()
    )


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
    if match := BYTE_PIECE.fullmatch(piece):
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
