"""What both models are asked, and how much of it."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Config, GivenPath, Items, Seed, Tokens, Unkeyed


class PromptsConfig(Config):
    """What base and tuned are asked. How they answer is set in `generation`, how it is judged in `evaluation`."""

    seed: Seed = 0
    """Chooses the chunks and the lines."""
    max_chunks: Items = Field(400, ge=1)
    """Held-out chunks whose loss is measured, spread evenly over the repositories; as many of the retention set."""
    line_prompts: Items = Field(200, ge=0)
    """Lines to complete from the text before them; 0 leaves the suite out. This and the next two count for held-out
    code and, once more, for the retention set."""
    fim_prompts: Items = Field(200, ge=0)
    """Lines to fill in between the text before and after them; 0 leaves the suite out."""
    block_prompts: Items = Field(100, ge=0)
    """Blocks of two to four lines to fill in; 0 leaves the suite out."""
    context_tokens: Tokens = Field(0, ge=0)
    """Tokens of other files of the repository, put before the prompts of `fim_prompts` as llama.cpp's server does it:
    the same gaps once more, as the suite `context`; 0 leaves it out."""
    prompt_tokens: Tokens = Field(256, ge=16)
    """Longest prompt in tokens, special ones included; what lies farthest from the gap is cut off."""
    max_new_tokens: Tokens = Field(48, ge=4)
    """Longest answer for a line, in tokens; twice that for a block. What would not fit is not asked for."""
    functional: tuple[GivenPath, ...] = Unkeyed(())
    """Functional suites, whose programs are run: names, such as humaneval or mbpp+, from the hub (`name@revision` pins
    one, an unknown name lists all), or paths of files of such problems."""
    functional_tokens: Tokens = Field(512, ge=16)
    """Longest answer to a problem of a functional suite, in tokens; most end by the suite's rules before."""
