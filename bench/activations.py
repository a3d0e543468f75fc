"""The largest numbers of a forward pass on real code, in fp32: what would overflow in fp16, which ends at 65,504?

    python -m bench.activations --out bench/results/activations.json [--models NAME=FOLDER …] [--sequences 64]

`bench.own_code.data.convert` makes SmolLM2's folder. The code is of the standard library, 1,024 tokens a sequence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from bench import common
from tasks.models.base_model import ModelConfig, locate

LENGTH = 1024
BUILT_IN = "built-in=models/codellama-tiny"


def largest(folder: str, scratch: Path, sequences: int) -> dict[str, float]:
    """The largest magnitude of each kind of number, over all layers and tokens."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM

    model = locate(ModelConfig(name=folder))
    _, tokens = common.texts_of(scratch, model, "texts", max_length=LENGTH)
    chunks = [
        ids for ids in pq.read_table(tokens.path / "train.parquet")["input_ids"].to_pylist() if len(ids) == LENGTH
    ]
    computed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, float] = defaultdict(float)

    def see(kind: str, values: Any) -> None:
        values = values[0] if isinstance(values, tuple) else values
        found[kind] = max(found[kind], float(values.abs().max()))

    for layer in computed.model.layers:
        layer.register_forward_hook(lambda _module, _given, made: see("residual stream", made))
        layer.mlp.down_proj.register_forward_hook(lambda _module, _given, made: see("output of down_proj", made))
        layer.mlp.down_proj.register_forward_pre_hook(lambda _module, given: see("input of down_proj", given))
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.register_forward_hook(lambda _module, _given, made: see("queries, keys", made))
    step = max(1, len(chunks) // sequences)
    with torch.inference_mode():
        for ids in chunks[::step][:sequences]:
            see("logits", computed(torch.tensor([ids])).logits)
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--models", nargs="+", default=[BUILT_IN], metavar="NAME=FOLDER")
    parser.add_argument("--sequences", type=int, default=64, help="of each model's texts")
    arguments = parser.parse_args()
    record = {}
    for name, folder in (pair.split("=", 1) for pair in arguments.models):
        with tempfile.TemporaryDirectory() as scratch:
            record[name] = largest(folder, Path(scratch), arguments.sequences)
        print(name, record[name], flush=True)
    arguments.out.write_text(json.dumps({"sequences": arguments.sequences, "largest": record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
