"""Generation: what base and tuned make of held-out code, of code from elsewhere, and of problems with tests.

Needs the model, and leaves everything that scoring needs: `tasks.evaluation` works on its files alone, without a GPU.
What is asked comes from `tasks.prompts`. Base and tuned are one loaded model with the adapter switched off and on, so
that quantization, kernels and batches are the same. The base model goes first, then the base model again, which shows
what two runs of one model differ by.

    models      base and tuned, loaded once
    losses      chunks → token loss
    work        one file of the prompts, put to every side
    stage       all files, and what is left of them: `losses.parquet`, `completions.parquet`, `problems/`
    completing  one prompt of a person's
"""

from tasks.generation.config import GenerationConfig
from tasks.generation.stage import SHIPPED, STAGE, run_generation

__all__ = ["SHIPPED", "STAGE", "GenerationConfig", "run_generation"]
