"""What a bad disk or a careless person does to a file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

Harm = Literal["delete", "truncate", "flip"]
HARMS: tuple[Harm, ...] = ("delete", "truncate", "flip")


def damage(path: Path, harm: str, chance: random.Random) -> None:
    """Delete a file, cut it short, or flip one bit of it; where, is a matter of chance."""
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
