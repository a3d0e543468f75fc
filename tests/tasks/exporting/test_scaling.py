"""The weight of the adapter in what is handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from artifacts.errors import InputError
from artifacts.schema import ExportedModel, ScaledLoss, ValidationResult
from flows.config import build
from tasks.exporting import STAGE, ExportingConfig
from tasks.exporting.adapter import Adapter
from tasks.exporting.scaling import choose_scale
from tests.conftest import SMALL_MODEL
from tests.tasks.exporting.pieces import Pieces, make, tiny_llama

AUTO = ExportingConfig(adapter_scale="auto", quantization="none", positions=40)


def measured(before: float | None, losses: dict[float, float]) -> ValidationResult:
    scaled = tuple(ScaledLoss(scale=scale, loss=loss) for scale, loss in losses.items())
    steps = {"kept_step": 4, "kept_loss": losses[1.0], "last_step": 4, "last_loss": losses[1.0]}
    return ValidationResult(
        sequences=6,
        tokens=300,
        unit="files",
        units=6,
        loss_before=before,
        scaled=scaled,
        **steps,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("before", "losses", "scale"),
    [
        (2.0, {0.6: 1.20, 0.7: 1.10, 0.8: 1.04, 0.9: 1.01, 1.0: 1.00}, 0.8),  # gives up 0.04 of 1.00
        (2.0, {0.6: 1.001, 0.7: 1.0, 0.8: 1.0, 0.9: 1.0, 1.0: 1.0}, 0.6),
        (2.0, {0.6: 1.8, 0.8: 1.4, 1.0: 1.0}, 1.0),
        (2.0, {0.6: 1.30, 0.8: 1.00, 1.0: 1.20}, 0.8),  # learned too much
        (1.0, {0.6: 1.2, 0.8: 1.3, 1.0: 1.4}, 0.6),  # learned nothing: the least harm
        (None, {0.6: 1.2, 0.8: 1.1, 1.0: 1.1}, 0.8),
    ],
)
def test_the_least_that_costs_next_to_nothing(before: float | None, losses: dict[float, float], scale: float) -> None:
    assert choose_scale(AUTO, measured(before, losses)) == scale


def test_a_number_is_taken_as_it_is() -> None:
    assert choose_scale(ExportingConfig(adapter_scale=0.75), None) == 0.75


def test_nothing_is_chosen_by_nothing() -> None:
    with pytest.raises(InputError, match="validation"):
        choose_scale(AUTO, None)
    with pytest.raises(InputError) as caught:
        build("demo", ["exporting.adapter_scale=auto"])
    assert caught.value.field == "exporting.adapter_scale"
    build("demo", ["exporting.adapter_scale=auto", "training.validation={}"])


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    folder = tmp_path_factory.mktemp("scaled")
    return make(folder, tiny_llama(folder / "base", SMALL_MODEL))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in folder.glob("*.safetensors") for name, weight in load_file(file).items()}


def test_every_form_has_the_weight(pieces: Pieces, tmp_path: Path) -> None:
    """Each passes its own comparison; all of one weight, which is three quarters of the trained one."""
    config = ExportingConfig(adapter_scale=0.75, quantization="none", positions=40)
    made: ExportedModel = STAGE.run(config, **pieces.inputs(), workdir=tmp_path)
    assert made.adapter_scale == 0.75 and "adapter weight 0.75" in made.summary
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}
    trained, exported = (Adapter.read(folder) for folder in (pieces.checkpoint.path / "adapter", tmp_path / "adapter"))
    base, merged = stored(pieces.model.metadata), stored(tmp_path / "merged")
    for module in trained.modules:
        whole, found = trained.delta(module), exported.delta(module)
        assert (found - 0.75 * whole).abs().max() < 1e-6 * whole.abs().max() and whole.abs().max() > 0
        expected = base[f"{module}.weight"].float() + 0.75 * whole
        assert (merged[f"{module}.weight"].float() - expected).abs().max() < 1e-3 * expected.abs().max()
    assert "0.75 of what was trained" in (tmp_path / "merged" / "README.md").read_text()


def test_as_trained_by_default(pieces: Pieces, tmp_path: Path) -> None:
    config = ExportingConfig(forms=(), quantization="none", positions=40)
    STAGE.run(config, **pieces.inputs(), workdir=tmp_path)
    name = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / name).read_bytes() == (pieces.checkpoint.path / "adapter" / name).read_bytes()
    assert config.keyed() == ExportingConfig(forms=(), quantization="none", positions=40, adapter_scale=1).keyed()
    assert "adapter_scale" not in config.keyed()
