"""The base model, quantized once and kept: what training and evaluation load instead of quantizing again."""

from artifacts.schema import QuantizedBase
from tasks.quantization.run import run_quantization
from tasks.quantization.settings import QuantizationConfig
from tasks.quantization.show import sections
from tasks.stage import Stage

STAGE = Stage(name="quantization", version=1, run=run_quantization, produces=QuantizedBase, sections=sections)

__all__ = ["STAGE", "QuantizationConfig", "run_quantization", "sections"]
