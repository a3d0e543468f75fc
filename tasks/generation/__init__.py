"""Generation: what base and tuned make of held-out code, of code from elsewhere, and of problems with tests.

Needs the model, and leaves everything that scoring needs: `tasks.evaluation` works on its files alone, without a GPU.
Base and tuned are one loaded model with the adapter switched off and on, so that quantization, kernels and batches are
the same. The base model goes first, then the base model again, which shows what two runs of one model differ by.

    suites      files → items: a gap in a file, the prompt that leads to it, what stands there in truth
    overlaps    what stands in the training data, and is not asked
    problems    functional suites → items
    models      base and tuned, loaded once
    sides       what computes one of them: the libraries' modules, or the engine where the plan says so
    losses      chunks → token loss
    answers     prompts → greedy answers by the libraries' modules
    work        all of it, side by side
    stage       what is asked, and the files that are left: `losses.parquet`, `completions.parquet`, `problems/`
"""

from tasks.generation.config import GenerationConfig
from tasks.generation.problems import suites_fingerprint
from tasks.generation.stage import STAGE, check_context, run_generation

__all__ = ["STAGE", "GenerationConfig", "check_context", "run_generation", "suites_fingerprint"]
