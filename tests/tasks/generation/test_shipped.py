"""Both models measured as the file that is shipped, in llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import InputError
from artifacts.rows import read_rows
from artifacts.schema import ExportedModel
from flows.config import build
from tasks.generation import GenerationConfig
from tests.tasks.generation import world
from tests.tasks.gguf.extra import WITH_EXTRA

FEW = {"line_prompts": 4, "fim_prompts": 2, "block_prompts": 0, "repeated": 0.1}


@WITH_EXTRA
def test_sixteen_bits_are_what_was_trained_and_four_are_not(
    small_world: world.World, noise: ExportedModel, tmp_path: Path
) -> None:
    trained = world.generate(small_world, noise, tmp_path / "trained", **FEW)
    losses = {"trained": read_rows(trained.path / "losses.parquet")}
    for kind in ("f16", "q4_k_m"):
        (folder := tmp_path / kind).mkdir()
        exported = world.with_gguf(noise, folder, kind=kind)
        made = world.generate(small_world, exported, folder / "made", form=f"gguf-{kind}", **FEW)
        assert made.form == f"gguf-{kind}" and made.speed is not None and made.speed.backend == "llama.cpp"
        assert not [path for path in made.path.iterdir() if path.name.startswith(".")]
        losses[kind] = read_rows(made.path / "losses.parquet")
    for side in ("base", "tuned"):
        whole, sixteen, four = ([row[side] for row in losses[name]] for name in ("trained", "f16", "q4_k_m"))
        assert sixteen == pytest.approx(whole, rel=5e-3) and sixteen != whole
        assert max(abs(a / b - 1) for a, b in zip(four, whole, strict=True)) > 0.01


def test_a_form_that_was_not_exported_is_told(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not exported as gguf-q8_0|not installed") as refused:
        world.generate(small_world, noise, tmp_path / "made", form="gguf-q8_0", **FEW)
    assert refused.value.field == "generation.form"


def test_it_is_told_before_the_run() -> None:
    config = build("demo", ["generation.form=gguf-q4_k_m"])
    with pytest.raises(InputError, match=r"is not among exporting\.forms") as refused:
        config.exporting.check(config.generation.form)
    assert refused.value.field == "generation.form" and "[merged, gguf-q4_k_m]" in str(refused.value.remedy)


def test_a_form_that_the_gate_requires_is_one_that_is_measured() -> None:
    measured = ["exporting.forms=[gguf]", "generation.form=gguf-q8_0"]
    assert build("demo", [*measured, "gate.requires=[improved, gguf-q8_0]"]).gate.forms == ("gguf-q8_0",)
    for changes, said in (([], "no form is"), (measured, "only gguf-q8_0 is")):
        with pytest.raises(InputError, match=f"gguf-q4_k_m is required, and {said} measured") as refused:
            build("demo", [*changes, "gate.requires=[improved, gguf-q4_k_m]"])
        assert refused.value.field == "gate.requires" and "generation.form=gguf-q4_k_m" in str(refused.value.remedy)


@pytest.mark.parametrize("name", ["merged", "gguf-x", "q4_k_m"])
def test_only_whole_models_as_gguf_can_be_measured(name: str) -> None:
    with pytest.raises(ValueError, match="there are gguf-f16"):
        GenerationConfig(form=name)
