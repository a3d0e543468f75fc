from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from tasks.models.libraries import import_bitsandbytes
import torch
usual = torch.compile
import_bitsandbytes()
assert torch.compile is usual
assert "bitsandbytes" in sys.modules and "torch._inductor.compile_fx" not in sys.modules
"""


def test_bitsandbytes_comes_without_a_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_bitsandbytes_fetches_no_code(tmp_path: Path) -> None:
    """`kernels` loads compiled code from a hub; bitsandbytes asks for it on processors that multiply in bf16."""
    (tmp_path / "kernels.py").write_text("raise SystemExit('kernels was imported')")
    asks = "from bitsandbytes.functional import has_avx512bf16\nprint(int(has_avx512bf16()))"
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SCRIPT}\nassert 'kernels' not in sys.modules\n{asks}"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout.strip() == "0":
        pytest.skip("this processor has no AVX512-BF16: bitsandbytes does not ask")
