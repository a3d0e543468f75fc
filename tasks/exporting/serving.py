"""What programs that serve a model are told of it: Ollama in a Modelfile, vLLM on its command line.

Sources: Ollama's documentation of Modelfiles and of templates; for the ranks and features of adapters that vLLM takes,
its `LoRAConfig` and `PEFTHelper`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tasks.exporting.adapter import Adapter
from tasks.families.chat import ChatTemplate, find_template
from tasks.families.marks import marks_of
from tasks.models.files import PAPERS
from tasks.models.vocabulary import CodeTokenizer

MODELFILE = "Modelfile"
NAME = "codetune"
"""What the model is called there."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` of vLLM may be."""
CONTEXT = 8192
"""Tokens that Ollama is to reserve at most: more takes memory that a small machine lacks."""
_UNKNOWN_TO_VLLM = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")


def vllm_problem(adapter: Adapter) -> str | None:
    """Why vLLM cannot serve an adapter, in words; None where it can."""
    settings = adapter.settings
    if int(settings["r"]) > RANKS[-1]:
        return f"its rank is {settings['r']}, and vLLM takes at most {RANKS[-1]}"
    if found := [name for name in _UNKNOWN_TO_VLLM if settings.get(name)]:
        return f"vLLM does not know its {', '.join(found)}"
    if settings.get("bias", "none") != "none" or any(adapter.modules.values()):
        return "vLLM takes neither biases nor embeddings in an adapter"
    return None


def vllm_lines(adapter: Adapter, base: str, revision: str | None, folder: str) -> str:
    """The command that serves base and adapter, or why there is none, as lines of a shell."""
    if problem := vllm_problem(adapter):
        return f"# with vLLM serve the merged model instead: {problem}"
    rank = next(rank for rank in RANKS if rank >= int(adapter.settings["r"]))
    at = f" --revision {shlex.quote(revision)}" if revision else ""
    return (
        f"vllm serve {shlex.quote(base)}{at} --enable-lora --max-lora-rank {rank} \\\n"
        f"    --lora-modules {shlex.quote(f'{NAME}={folder}')}"
    )


def modelfile(file: str, base: Path, tokenizer: CodeTokenizer, context: int | None, *, chats: bool) -> str:
    """What `ollama create` is told of a GGUF file beside it.

    Args:
        base: the folder of the base model, with its chat template and licence.
        context: the model's context, tokens.
        chats: the model was tuned on instructions: a prompt is what a person says in a chat.
    """
    chat = find_template(base) if chats else None
    lines = [f"FROM ./{file}", f"TEMPLATE {_several(_template(tokenizer, chat))}"]
    lines += [f'PARAMETER stop "{name}"' for name in _stops(tokenizer, chat)]
    lines.append(f"PARAMETER num_ctx {min(context or CONTEXT, CONTEXT)}")
    if licence := _licence(base):
        lines.append(f"LICENSE {_several(licence)}")
    return "\n".join(lines) + "\n"


def _template(tokenizer: CodeTokenizer, chat: ChatTemplate | None) -> str:
    """A prompt in Go's language of templates. The beginning of a text is left out: Ollama writes it by itself."""
    body = "{{ .Prompt }}"
    if chat:
        begins = _name(tokenizer, tokenizer.bos)
        before, after, end = map(_escaped, (chat.before.removeprefix(begins), chat.after, chat.end))
        body = f"{before}{body}{after}{{{{ .Response }}}}{end}"
    marks = marks_of(tokenizer)
    if marks is None:
        return body
    return f"{{{{ if .Suffix }}}}{marks.around('{{ .Prompt }}', '{{ .Suffix }}')}{{{{ else }}}}{body}{{{{ end }}}}"


def _stops(tokenizer: CodeTokenizer, chat: ChatTemplate | None) -> Iterable[str]:
    """What an answer never has in it, each once."""
    marks = marks_of(tokenizer)
    found = [marks.prefix, marks.suffix, marks.middle, marks.end] if marks else []
    found.append(_name(tokenizer, tokenizer.eos))
    found += [_name(tokenizer, index) for index in chat.ends(tokenizer)] if chat else []
    return dict.fromkeys(filter(None, found))


def _name(tokenizer: CodeTokenizer, index: int | None) -> str:
    return next((name for name, one in tokenizer.ids.items() if one == index), "")


def _escaped(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _several(text: str) -> str:
    """A value of several lines: it ends at the first three quotes."""
    quotes = '"' * 3
    return f"{quotes}{text.replace(quotes, chr(39) * 3)}{quotes}"


def _licence(base: Path) -> str:
    found = [path for pattern in PAPERS[:2] for path in sorted(base.glob(pattern)) if path.is_file()]
    return found[0].read_text(encoding="utf-8", errors="replace").strip() if found else ""
