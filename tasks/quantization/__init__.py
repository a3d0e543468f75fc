"""The base model, quantized once and kept: what training and evaluation load instead of quantizing again."""

from tasks.quantization.config import QuantizationConfig
from tasks.quantization.stage import STAGE, run_quantization

__all__ = ["STAGE", "QuantizationConfig", "run_quantization"]
