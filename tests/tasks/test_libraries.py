from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from tasks.libraries import import_bitsandbytes
import torch
usual = torch.compile
import_bitsandbytes()
assert torch.compile is usual
assert "bitsandbytes" in sys.modules and "torch._inductor.compile_fx" not in sys.modules
"""


def test_bitsandbytes_comes_without_a_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
