"""Whether the extra is installed; tests of what needs it are skipped where it is not."""

from importlib.util import find_spec

import pytest

INSTALLED = find_spec("llama_cpp") is not None
WITH_EXTRA = pytest.mark.skipif(not INSTALLED, reason="needs the extra codetune[gguf]: llama-cpp-python")
