"""llama.cpp's converter in a process of its own: `python -m tasks.gguf.child`, the job as JSON on stdin.

It brings modules with the names `conversion` and `gguf`, changes classes of torch, and takes memory; none of it may
stay. The last line of stdout is a JSON object: empty, or with the `problem`.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.processes.child import die_with


def convert(job: dict[str, Any]) -> None:
    """Write the GGUF file of a model's folder, with the keys and kinds of tokens of the job. `weights`: with those."""
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    folder = Path(job["folder"])
    architecture = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
    known: Any = get_model_class(architecture)

    class Converted(known):  # type: ignore[misc]
        model_arch = known.model_arch

        def set_vocab(self) -> None:
            super().set_vocab()
            written = self.gguf_writer.kv_data[0]
            kinds = written[gguf.Keys.Tokenizer.TOKEN_TYPE].value
            for index in job["special"]:  # a text that looks like one is no command
                if kinds[index] != gguf.TokenType.UNKNOWN:
                    kinds[index] = gguf.TokenType.CONTROL
            for key, value in job["keys"].items():
                kind = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.UINT32
                written[key] = gguf.GGUFValue(value=value, type=kind)

        def set_gguf_parameters(self) -> None:
            super().set_gguf_parameters()
            key = gguf.Keys.Rope.FREQ_BASE.format(arch=self.gguf_writer.arch)
            if job["rope_base"] is not None and key not in self.gguf_writer.kv_data[0]:
                self.gguf_writer.add_rope_freq_base(job["rope_base"])  # else it stands for llama.cpp's default

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            try:
                return str(super().get_vocab_base_pre(tokenizer))
            except NotImplementedError:
                if job["splitter"] is None:
                    raise
                return str(job["splitter"])

    kind = gguf.LlamaFileType.MOSTLY_F16
    with torch.inference_mode(), tempfile.TemporaryDirectory() as nothing:
        made = Converted(folder, kind, Path(job["file"]), model_name=job["name"])
        made.dir_model_card = Path(nothing)  # else it guesses, from the names of folders among others
        made.write() if job["weights"] else made.write_vocab()


def convert_adapter(job: dict[str, Any]) -> None:
    """Write the GGUF file of a LoRA adapter's folder."""
    sys.argv = ["convert_lora_to_gguf.py", job["folder"], "--base", job["base"], "--outfile", job["file"]]
    sys.argv += ["--outtype", "f32"]
    runpy.run_path(str(Path(job["converter"]) / "convert_lora_to_gguf.py"), run_name="__main__")


def find_converter(folder: str) -> None:
    """Have its modules found before others of these names."""
    sys.path[:0] = [folder, str(Path(folder) / "gguf-py")]
    os.environ["NO_LOCAL_GGUF"] = "it is on the path already"


def main() -> dict[str, str]:
    job = json.loads(sys.stdin.read())
    die_with(job["parent"])
    find_converter(job["converter"])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        convert_adapter(job) if job["adapter"] else convert(job)
    except NotImplementedError as error:
        return {"problem": str(error)}
    return {}


if __name__ == "__main__":
    answer = main()
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
