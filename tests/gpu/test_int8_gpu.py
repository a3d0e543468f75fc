"""Products on int8 tensor cores on a GPU, by Triton and as a T4 makes them, against the same arithmetic in torch."""

from __future__ import annotations

import pytest
import torch

from tasks.backends.fused import int8, ops
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tests.gpu.test_engine_gpu import TOLERANCE, both, error
from tests.tasks.backends.fused import interpreted, models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
PATHS = ["triton", "cublaslt"]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(int8, "forced", request.param)
    return str(request.param)


@pytest.mark.parametrize(
    ("tokens", "outputs", "inputs"), [(1024, 4096, 11008), (1024, 12288, 4096), (100, 4096, 4096), (77, 1160, 576)]
)
def test_the_product_is_exact_but_for_its_rounding(path: str, tokens: int, outputs: int, inputs: int) -> None:
    x = int8.Quantized(
        torch.randint(-127, 128, (tokens, inputs), dtype=torch.int8, device="cuda"),
        torch.rand(tokens, device="cuda") / 100,
    )
    w = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device="cuda")
    scales = torch.rand(outputs, device="cuda") / 1000
    left = torch.randn(tokens, 32, device="cuda").half()
    right = torch.randn(32, outputs, device="cuda").half() / 10
    out = torch.full((tokens, outputs + 16), float("nan"), dtype=torch.float16, device="cuda")
    int8.product(x, w, scales, out[:, :outputs], left, right)
    exact = (x.codes.double() @ w.double().T) * x.scales[:, None] * scales + left.double() @ right.double()
    assert error(out[:, :outputs], exact) < 1e-3 and out[:, outputs:].isnan().all()
    plain = torch.empty((tokens, outputs), dtype=torch.float16, device="cuda")
    int8.product(x, w, None, plain)
    assert error(plain, (x.codes.double() @ w.double().T) * x.scales[:, None]) < 1e-3


def quantized(made: int8.Quantized) -> torch.Tensor:
    return made.codes.float() * made.scales[:, None]


@pytest.mark.parametrize("width", [576, 4096, 11008])
def test_quantizing_is_that_of_torch(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, _), (r, _), (w, _), (wide, _), (dy, _) = (
        both(65, width),
        both(65, width),
        both(width),
        both(65, 2 * width + 8),
        both(65, width),
    )
    apart, factors = int8.Apart.largest(x), torch.rand(2 * width, device="cuda") / 100
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(ops, "by_kernels", lambda _, kernels=kernels: kernels)
        stream, gate_up = x.clone(), wide.clone()
        normed, _ = int8.rms_norm(stream, w, 1e-5, r, apart, plain=True)
        activation = int8.swiglu(gate_up, width, apart, plain=True)
        backward = int8.swiglu_backward(dy, gate_up, factors, plain=True)
        simple = int8.quantize(wide, factors)
        found.append([stream, gate_up, simple, normed, activation, backward])
    for one, other in zip(*found, strict=True):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            assert error(one, other) < TOLERANCE
        elif isinstance(one, int8.Quantized) and isinstance(other, int8.Quantized):
            assert error(quantized(one), quantized(other)) < TOLERANCE
            if one.apart is not None and other.apart is not None:
                assert error(one.apart, other.apart) < TOLERANCE


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [688, 1536, 8960, 11008, 18944, 28672])
def test_swiglu_has_the_bits_of_two_kernels(width: int, plain: bool) -> None:
    """The last of them needs more registers than there are."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert all(interpreted.same_bits(*pair) for pair in interpreted.rows(width, dtype, plain=plain))


def test_halves_are_rounded_away_from_zero() -> None:
    halves = torch.arange(-127, 127.5, 0.5, device="cuda")
    made = int8.quantize(halves[None], torch.ones_like(halves))
    assert torch.equal(made.codes[0].float(), halves.sign() * (halves.abs() + 0.5).floor())


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_overflow_stays_visible(path: str, value: float) -> None:
    """Else the gradient scaler would take the step."""
    dy = torch.randn(64, 256, device="cuda").half()
    dy[5, 7] = value
    w = torch.randint(-127, 128, (128, 256), dtype=torch.int8, device="cuda")
    out = torch.empty((64, 128), dtype=torch.float16, device="cuda")
    int8.product(int8.quantize(dy, torch.rand(256, device="cuda")), w, None, out)
    assert not out[5].isfinite().any() and out[6:].isfinite().all()


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "gate_proj", "down_proj", "o_proj")])
def test_a_captured_step_has_the_gradients_of_plain_torch(
    path: str, targets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.outliers("int8", targets, layers=2)
    ids, labels = models.texts(model, sequences=2, tokens=128)
    factor = torch.tensor(4.0, device="cuda")
    found = []
    for kernels, checkpointed, resident in ((True, 0, 0), (True, 1, 1), (False, 0, 0)):
        fused = FusedModel(model, products="int8", checkpointed=checkpointed, resident=resident, length=128)
        calibrate(fused)
        if not kernels:
            monkeypatch.setattr(ops, "by_kernels", lambda _: False)
        fused.adapters.clear()
        if kernels:
            batch = MicroBatch(fused, (2, 128))
            assert batch.captured
            loss = batch.run(ids, labels, factor)
        else:
            loss = fused.loss_and_gradients(ids, labels, factor)
        found.append((float(loss), fused.adapters.grads.clone()))
    (loss, gradients), (again, same), (expected_loss, expected) = found
    assert loss == again and torch.equal(gradients, same)
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    assert error(gradients, expected) < 0.05  # a number between two codes falls either way
