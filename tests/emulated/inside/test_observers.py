# SPDX-License-Identifier: MIT
"""Observers: the ranges are those of their definitions. Smoothing: SmoothQuant's formula, and what it is for."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.ao.quantization as tq
from helpers import given
from hypothesis import strategies as st
from torch import nn

import acl_qlinear
from acl_qlinear import reference
from acl_qlinear.calibration import smoothing
from acl_qlinear.observers import MeanSquaredError, MinMax, Percentile


def batches(seed: int, kind: str, scale: float, count: int = 4000) -> list[torch.Tensor]:
    """Inputs of a layer: of some kind, and of sizes that grow and shrink, so that histograms have to widen."""
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda n: rng.standard_normal(n),
        "outliers": lambda n: rng.standard_t(2, n),
        "relu": lambda n: np.maximum(rng.standard_normal(n), 0),
        "negative": lambda n: -rng.exponential(size=n),
        "two values": lambda n: rng.choice([-1.0, 3.0], n),
    }[kind]
    sizes = rng.uniform(0.01, 1, 6)
    return [torch.tensor(values(count) * size * scale, dtype=torch.float32).reshape(2, 4, -1) for size in sizes]


def observed(observer, inputs: list[torch.Tensor]) -> tuple[float, float]:
    for x in inputs:
        observer(x)
    return observer.range()


KINDS = ["normal", "outliers", "relu", "negative", "two values"]
SEEDS = st.integers(0, 999)


@given(40, seed=SEEDS, kind=st.sampled_from(KINDS), scale=st.sampled_from([1e-30, 1e-3, 1.0, 77.0, 1e30]))
def test_min_max(seed, kind, scale):
    inputs = batches(seed, kind, scale)
    x = torch.cat(inputs)
    assert observed(MinMax(), inputs) == (min(x.min().item(), 0), max(x.max().item(), 0))
    theirs, ours = tq.MinMaxObserver(dtype=torch.qint8), MinMax()
    observed_theirs = [theirs(part) for part in inputs] and theirs.calculate_qparams()
    observed(ours, inputs)
    scale, zero_point = ours.calculate_qparams()
    assert scale.float() == pytest.approx(observed_theirs[0].item(), rel=1e-6)
    assert abs(zero_point - observed_theirs[1]) <= 1


@given(40, seed=SEEDS, kind=st.sampled_from(KINDS), percent=st.sampled_from([60, 99, 99.9, 100]))
def test_percentile(seed, kind, percent):
    inputs = batches(seed, kind, 1.0)
    x = torch.cat(inputs).flatten().numpy()
    low, high = observed(Percentile(percent), inputs)
    # The width of a bin, where all values are below a power of two.
    width = 2.0 ** np.ceil(np.log2(abs(x).max() * 1.0001)) / 2**13
    cut = {60: 4800, 99: 120, 99.9: 12, 100: 0}[percent]
    ordered = np.sort(x)
    assert len(x) == 24000
    expected = ordered[cut], ordered[len(x) - cut - 1]
    assert low <= 0 <= high
    assert low == pytest.approx(min(expected[0], 0), abs=width) and high == pytest.approx(
        max(expected[1], 0), abs=width
    )
    assert ((x < low) | (x > high)).sum() <= 2 * cut


def error_of(x: np.ndarray, low: float, high: float) -> float:
    scale = max((high - low) / 255, 2**-23)
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    q = np.clip(np.rint(x / scale) + zero_point, -128, 127)
    return float(np.square((q - zero_point) * scale - x).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_mean_squared_error(kind):
    for seed in range(2):
        inputs = batches(seed, kind, 5.0, count=256)
        x = torch.cat(inputs).flatten().double().numpy()
        low, high = observed(MeanSquaredError(), inputs)
        parts = np.arange(1, 33) / 32
        least = min(error_of(x, x.min() * a if x.min() < 0 else 0, max(x.max(), 0) * b) for a in parts for b in parts)
        # All values and their ends, which bins have not.
        assert error_of(x, low, high) <= 1.05 * least + 1e-9 * np.square(x).mean(), (kind, seed)


def test_percentages_that_are_none():
    for wrong in ("a", None):
        with pytest.raises(TypeError, match=f"percent is {wrong!r}, expected a number above 50"):
            Percentile(wrong)
    for percent in (50, 100.1, -1, float("nan")):
        with pytest.raises(ValueError, match=f"percent is {percent}, expected a number above 50 and at most 100"):
            Percentile(percent)


@pytest.mark.parametrize("observer", [MinMax, Percentile, functools.partial(Percentile, 99), MeanSquaredError])
def test_each_quantizes_a_layer(observer):
    torch.manual_seed(1)
    layer, x = nn.Linear(24, 8).eval(), torch.randn(200, 24)
    ours = acl_qlinear.quantize(layer, lambda model: model(x), observer=observer)
    expected = observer()
    expected(x)
    scale, zero_point = expected.calculate_qparams()
    assert (ours.x_scale, ours.x_zero_point) == (scale.item(), zero_point.item())
    assert (ours(x) - layer(x)).abs().mean() < 0.1


def test_smoothing_is_the_papers_where_inputs_are_large():
    generator = torch.Generator().manual_seed(2)
    largest, weight = torch.rand(40, generator=generator) * 9, torch.randn(6, 40, generator=generator)
    largest[3] = 0
    weight[:, 5] = 0
    for strength in (0.25, 0.5, 1):
        factors = largest**strength / weight.abs().amax(0) ** (1 - strength)
        used = [k for k in range(40) if k not in (3, 5)]
        factors /= factors[used].log().mean().exp()
        expected = torch.where(factors > 1, 1 / factors, 1)
        expected[[3, 5]] = 1
        assert torch.allclose(smoothing(largest, weight, strength), expected, rtol=1e-5, atol=0)
    assert torch.equal(smoothing(torch.zeros(40), weight, 0.5), torch.ones(40))
    far = smoothing(torch.tensor([1e30, 1e-30]), torch.ones(1, 2), 1)
    assert far[0] > 1e-7 and far[1] == 1


def with_outliers() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 16)).eval()
    with torch.no_grad():
        model[0].weight[[5, 17]] *= 40
        model[1].weight[:, [5, 17]] /= 40
    return model, torch.randn(3, 50, 48)


@pytest.mark.parametrize("observer", [MinMax, MeanSquaredError, lambda: tq.MinMaxObserver(dtype=torch.qint8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smoothing_makes_static_layers_more_accurate(observer, dtype):
    model, x = with_outliers()
    model, x = model.to(dtype), x.to(dtype)
    ratios = {
        smooth: acl_qlinear.compare(
            model, acl_qlinear.quantize(model, lambda m: m(x), observer=observer, smooth=smooth), [x]
        ).output
        for smooth in (None, 0.5, 0.75)
    }
    assert ratios[0.5] > ratios[None] + 6 and ratios[0.75] > ratios[None] + 6, ratios


def test_a_smoothed_layer_computes_what_the_reference_does():
    model, x = with_outliers()
    ours = acl_qlinear.quantize(model, lambda m: m(x), smooth=0.5)[1]
    assert "pre_scale" in repr(ours)
    weight, scale, _, bias = acl_qlinear.unpack(ours.packed)
    pre_scale = acl_qlinear.pre_scale(ours.packed)
    assert pre_scale.max() <= 1 and pre_scale[5] < 0.2
    row = model[0](x)[0].detach()
    q = reference.quantize((row * pre_scale).numpy(), ours.x_scale, ours.x_zero_point)
    expected = reference.linear(q, reference.Quantized(weight.numpy(), scale.numpy(), 0), bias.numpy())
    assert np.allclose(ours(row).numpy(), expected, rtol=1e-5, atol=1e-5)
    # As a float layer's: both together.
    assert torch.allclose(ours.weight.clone(), model[1].weight, atol=0.02 * model[1].weight.abs().max().item())


WRONG = [
    ({"smooth": 0.5}, ValueError, "smooth is given without calibrate, expected both"),
    ({"smooth": 0, "calibrate": print}, ValueError, "smooth is 0, expected a number above 0 and at most 1"),
    ({"smooth": 1.5, "calibrate": print}, ValueError, "smooth is 1.5, expected a number above 0 and at most 1"),
    ({"smooth": float("nan"), "calibrate": print}, ValueError, "smooth is nan, expected"),
    ({"smooth": True, "calibrate": print}, TypeError, "smooth is True, expected a number above 0 and at most 1, or"),
    ({"smooth": "0.5", "calibrate": print}, TypeError, "smooth is '0.5', expected a number"),
    (
        {"observer": "mse", "calibrate": print},
        TypeError,
        "observer is a str, expected a class of acl_qlinear.observers, or a",
    ),
    ({"observer": MinMax(), "calibrate": print}, TypeError, "observer is a MinMax, expected a function that makes"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.quantize(nn.Linear(4, 4), **options)


def test_observers_that_have_seen_nothing_are_as_those_of_zeros():
    for kind in (MinMax, Percentile, MeanSquaredError):
        zeros = kind()
        zeros(torch.zeros(3))
        assert kind().calculate_qparams() == zeros.calculate_qparams()
        # Zeros before small values take nothing of their precision away.
        small, after_zeros = torch.linspace(-3e-6, 5e-6, 1000), kind()
        assert observed(after_zeros, [torch.zeros(10), small]) == pytest.approx(observed(kind(), [small]), rel=2e-3)


def test_calibration_with_a_copy_of_the_model():
    """Its layers are not the model's."""
    model, x = with_outliers()
    for smooth in (None, 0.5):
        ours = acl_qlinear.quantize(model, lambda m: (copy.deepcopy(m)(100 * x), m(x)), smooth=smooth)
        expected = acl_qlinear.quantize(model, lambda m: m(x), smooth=smooth)
        assert ours[1].x_scale == expected[1].x_scale


def test_nan_in_one_of_both_passes():
    model, x = with_outliers()
    inputs = iter([torch.full_like(x, torch.nan), x])
    with pytest.warns(UserWarning, match=r"1: its input in calibrate\(\) had NaN"):
        acl_qlinear.quantize(model, lambda m: m(next(inputs)), smooth=0.5)


def test_calibration_that_cannot_be_repeated_is_named():
    model, x = with_outliers()
    inputs = iter([x])
    with pytest.warns(UserWarning, match=r"1: calibrate\(\) ran it once only: with smooth, it is called twice"):
        ours = acl_qlinear.quantize(model, lambda m: [m(each) for each in inputs], smooth=0.5)
    assert not acl_qlinear.report(ours).replaced
