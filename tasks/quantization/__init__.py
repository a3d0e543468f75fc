"""The base model, quantized once and kept: what training and evaluation load instead of quantizing again."""

from artifacts.schema import QuantizedBase
from tasks.quantization.config import QuantizationConfig
from tasks.quantization.stage import run_quantization
from tasks.quantization.view import sections
from tasks.running.stage import Stage

STAGE = Stage(name="quantization", version=1, run=run_quantization, produces=QuantizedBase, sections=sections)

__all__ = ["STAGE", "QuantizationConfig", "run_quantization", "sections"]
