"""What to put into an editor so that it asks a server of ours, with the marks that the served model has.

Of the forms that editors document, the one for Code Llama writes `<PRE>` as plain text: a vocabulary that spells its
marks otherwise reads letters. So whoever lets an editor write a prompt gives it the marks as they are.

Sources: the documentation of llama.vim (`:help llama_config`), llama.vscode, Continue (`config.yaml`), Tabby
(`config.toml`, models over HTTP) and Zed (edit prediction).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from tasks.families import Marks

ZED = {
    "<fim_prefix>": "star_coder",
    "<｜fim▁begin｜>": "deepseek_coder",
    "<|fim_prefix|>": "qwen",
    "[PREFIX]": "codestral",
}
"""Zed's names of the prompts that it can write, by their first mark."""


class Snippet(NamedTuple):
    """What one editor is told."""

    editor: str
    place: str
    """Where it is written."""
    text: str


def snippets(address: str, model: str, marks: Marks | None) -> list[Snippet]:
    """For every editor that can use the model.

    Args:
        address: of the server.
        model: as it calls the model.
        marks: None for a model that cannot fill in; editors that send prefix and suffix get nothing.
    """
    if marks is None:
        return []
    found = []
    if not marks.suffix_first and marks.middle:  # llama.cpp's /infill writes the prefix first
        vim = f"let g:llama_config = {{'endpoint_fim': '{address}/infill'}}"
        found.append(Snippet("llama.vim", "~/.vimrc, before the plugin loads", vim))
        found.append(Snippet("llama.vscode", "settings.json", f'"llama-vscode.endpoint": "{address}"'))
    continued = marks.around("{{{prefix}}}", "{{{suffix}}}")
    found.append(
        Snippet(
            "Continue",
            "~/.continue/config.yaml, in models",
            f"- name: {json.dumps(model)}\n"
            "  provider: llama.cpp\n"
            f"  model: {json.dumps(model)}\n"
            f"  apiBase: {address}\n"
            "  roles: [autocomplete]\n"
            "  promptTemplates:\n"
            f"    autocomplete: {_text(continued)}",
        )
    )
    found.append(
        Snippet(
            "Tabby",
            "~/.tabby/config.toml",
            "[model.completion.http]\n"
            'kind = "llama.cpp/completion"\n'
            f"model_name = {_text(model)}\n"
            f'api_endpoint = "{address}"\n'
            f"prompt_template = {_text(marks.around('{prefix}', '{suffix}'))}",
        )
    )
    if kind := ZED.get(marks.prefix):
        told = {"api_url": f"{address}/v1/completions", "model": model, "prompt_format": kind, "max_output_tokens": 64}
        zed = {"edit_predictions": {"provider": "open_ai_compatible_api", "open_ai_compatible_api": told}}
        found.append(Snippet("Zed", "settings.json", json.dumps(zed, indent=2, ensure_ascii=False)))
    return found


def _text(text: str) -> str:
    """As JSON, YAML and TOML all write a text."""
    return json.dumps(text, ensure_ascii=False)


def find_marks(all_marks: tuple[Marks, ...], count: Callable[[str], int]) -> Marks | None:
    """The marks of a family that a vocabulary has, each as one token.

    Args:
        count: the number of tokens of a text.
    """
    for marks in all_marks:
        names = filter(None, (marks.prefix, marks.suffix, marks.middle, marks.end))
        if all(count(name) == 1 for name in names):
            return marks
    return None
