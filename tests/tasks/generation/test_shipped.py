"""Both models measured as the file that is shipped, in llama.cpp."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from artifacts.errors import InputError
from artifacts.progress import SILENT
from artifacts.rows import read_rows
from artifacts.schema import ExportedModel
from artifacts.store import Store
from flows.config import build
from tasks.backends.llama_cpp.inference import GgufComputing
from tasks.generation import SHIPPED, GenerationConfig, shipped
from tasks.running.job import Job
from tests.tasks.functional.suites import row, write
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
        made = world.generate(small_world, exported, folder / "made", forms=(f"gguf-{kind}",), **FEW)
        assert made.form == f"gguf-{kind}" and made.speed is not None and made.speed.backend == "llama.cpp"
        assert not [path for path in made.path.iterdir() if path.name.startswith(".")]
        losses[kind] = read_rows(made.path / "losses.parquet")
    for side in ("base", "tuned"):
        whole, sixteen, four = ([row[side] for row in losses[name]] for name in ("trained", "f16", "q4_k_m"))
        assert sixteen == pytest.approx(whole, rel=5e-3) and sixteen != whole
        assert max(abs(a / b - 1) for a, b in zip(four, whole, strict=True)) > 0.01


@WITH_EXTRA
def test_of_another_export_the_tuned_side_alone_is_asked(
    small_world: world.World, noise: ExportedModel, tmp_path: Path
) -> None:
    asked = small_world.ask(
        tmp_path / "asked", **{name: FEW[name] for name in ("line_prompts", "fim_prompts", "block_prompts")}
    )
    store, config = Store(tmp_path / "store"), GenerationConfig(**world.SETTINGS, forms=("gguf-q8_0",))
    (other := tmp_path / "other").mkdir()
    exports = [noise, world.memorised_adapter(other, world.source("alpha"))]
    made, counts = [], []
    for number, one in enumerate(exports):
        (folder := tmp_path / f"export {number}").mkdir()
        exported = world.with_gguf(one, folder, kind="q8_0").model_copy(update={"fingerprint": str(number)})
        inputs = small_world.inputs(exported, asked)
        del inputs["parts"]
        answering = patch.object(GgufComputing, "generate", autospec=True, side_effect=GgufComputing.generate)
        with patch.object(shipped, "convert", wraps=shipped.convert) as converted, answering as answered:
            made.append(Job.of(SHIPPED, config, inputs).build(store, SILENT).handle)
        counts.append((converted.call_count, answered.call_count))
    suites = len(asked.suites)
    assert counts == [(1, 3 * suites), (0, suites)]
    first, second = (read_rows(one.path / "completions.parquet") for one in made)
    assert [row["base"] for row in first] == [row["base"] for row in second]
    assert [row["tuned"] for row in first] != [row["tuned"] for row in second]
    assert len({*made[0].parts} & {*made[1].parts}) == 1 + suites
    speed = made[1].speed
    assert speed is not None and speed.backend == "llama.cpp" and speed.completions_per_second > 0


@WITH_EXTRA
def test_programs_of_sixteen_bits_are_those_of_the_trained_model(
    small_world: world.World, noise: ExportedModel, tmp_path: Path
) -> None:
    """Asked of the same prompts, ended by the same rules; now and then rounding leads to another token."""
    suite = write(
        tmp_path / "suite.jsonl",
        *(row(number, prompt=f"def f{number}(x):\n", entry_point=f"f{number}") for number in range(8)),
    )
    asked = {
        "line_prompts": 0,
        "fim_prompts": 0,
        "block_prompts": 0,
        "functional": (str(suite),),
        "functional_tokens": 24,
    }
    exported = world.with_gguf(noise, tmp_path)
    answers = [
        [row for row in read_rows(made.path / "completions.parquet") if row["suite"] == "suite"]
        for made in (
            world.generate(small_world, noise, tmp_path / "trained", **asked),
            world.generate(small_world, exported, tmp_path / "sixteen", forms=("gguf-f16",), **asked),
        )
    ]
    trained, sixteen = answers
    assert [one["path"] for one in trained] == [one["path"] for one in sixteen] and len(trained) == 8
    for side in ("base", "tuned"):
        same = sum(a[side] == b[side] for a, b in zip(trained, sixteen, strict=True))
        assert same >= 6, [(a[side], b[side]) for a, b in zip(trained, sixteen, strict=True)]
        assert any(one[side].strip() for one in trained)


def test_a_form_that_was_not_exported_is_told(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not exported as gguf-q8_0|not installed") as refused:
        world.generate(small_world, noise, tmp_path / "made", forms=("gguf-q8_0",), **FEW)
    assert refused.value.field == "generation.forms"


def test_it_is_told_before_the_run() -> None:
    config = build("demo", ["generation.forms=[gguf-f16, gguf-q4_k_m]"])
    said = r"gguf-f16 and gguf-q4_k_m are to be measured, and not exported"
    with pytest.raises(InputError, match=said) as refused:
        config.exporting.check(config.generation.forms)
    assert refused.value.field == "generation.forms" and "[merged, gguf-f16, gguf-q4_k_m]" in str(refused.value.remedy)


def test_a_form_that_the_gate_requires_is_one_that_is_measured() -> None:
    measured = ["exporting.forms=[gguf]", "generation.forms=[gguf-f16, gguf-q8_0]"]
    assert build("demo", [*measured, "gate.requires=[improved, gguf-q8_0]"]).gate.forms == ("gguf-q8_0",)
    for changes, said, all_of in (
        ([], "no form", "gguf-q4_k_m"),
        (measured, "gguf-f16, gguf-q8_0", "gguf-f16, gguf-q8_0, gguf-q4_k_m"),
    ):
        with pytest.raises(InputError, match=f"gguf-q4_k_m is required, and measured is {said}") as refused:
            build("demo", [*changes, "gate.requires=[improved, gguf-q4_k_m]"])
        assert refused.value.field == "gate.requires" and f"generation.forms=[{all_of}]" in str(refused.value.remedy)


def test_which_others_are_measured_changes_nothing_of_one() -> None:
    several = build("demo", ["exporting.forms=[gguf]", "generation.forms=[gguf-f16, gguf-q8_0]"]).generation
    alone = build("demo", ["exporting.forms=[gguf]", "generation.forms=[gguf-q8_0]"]).generation
    assert several.of("gguf-q8_0").keyed() == alone.of("gguf-q8_0").keyed() != several.of("gguf-f16").keyed()
    assert several.trained.keyed() == alone.trained.keyed() == {**alone.keyed(), "form": None}


@pytest.mark.parametrize("name", ["merged", "gguf-x", "q4_k_m"])
def test_only_whole_models_as_gguf_can_be_measured(name: str) -> None:
    with pytest.raises(ValueError, match="there are gguf-f16"):
        GenerationConfig(forms=(name,))


def test_a_form_is_named_once() -> None:
    with pytest.raises(ValueError, match="a form is named twice"):
        GenerationConfig(forms=("gguf-f16", "gguf-f16"))
