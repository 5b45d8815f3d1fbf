# SPDX-License-Identifier: MIT
"""Sums of quantized tensors: the operator, and models that PyTorch quantized."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as nnq
import torch.ao.quantization as tq
from helpers import INTEGER, QUANTIZED, given, quantized
from test_models import as_saved
from torch import nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import acl_qlinear
from acl_qlinear import reference, sums
from acl_qlinear.reference import Quantized


def random_values(rng, x_type, shape):
    limits = np.iinfo(INTEGER[x_type])
    return rng.integers(limits.min, limits.max, shape, INTEGER[x_type], endpoint=True)


def random_quantized(rng, x_type, shape):
    limits = np.iinfo(INTEGER[x_type])
    scale, zero_point = 2 ** rng.uniform(-12, 4), int(rng.integers(limits.min, limits.max, endpoint=True))
    return Quantized(random_values(rng, x_type, shape), scale, zero_point)


def as_torch(x):
    return quantized(x.values, x.scale, x.zero_point)


@given(
    150,
    seed=st.integers(0, 2**32),
    x_type=st.sampled_from(["u8", "s8"]),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    log_scale=st.floats(-3, 3),
    relu=st.booleans(),
)
def test_add(seed, x_type, shape, log_scale, relu):
    rng = np.random.default_rng(seed)
    a, b = (random_quantized(rng, x_type, shape) for _ in range(2))
    scale, zero_point = max(a.scale, b.scale) * 2**log_scale, a.zero_point
    y = acl_qlinear.add(as_torch(a), as_torch(b), scale, zero_point, relu)
    assert (y.dtype, y.shape) == (QUANTIZED[x_type], shape)
    assert (y.q_scale(), y.q_zero_point()) == (scale, zero_point)
    assert np.array_equal(y.int_repr().numpy(), reference.add(a, b, (INTEGER[x_type], scale, zero_point), relu))


def test_ties_go_to_even_and_threads_change_nothing():
    a = np.arange(40_000, dtype=np.int64).astype(np.uint8)
    x, b = quantized(a, 0.5, 3), quantized(a[::-1].copy(), 0.25, 6)
    expected = np.rint((a - 3.0) * 0.5 + (a[::-1] - 6.0) * 0.25) + 5
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            y = acl_qlinear.add(x, b, 1.0, 5)
        finally:
            torch.set_num_threads(1)
        assert np.array_equal(y.int_repr().numpy(), np.clip(expected, 0, 255).astype(np.uint8))


def test_any_strides():
    rng = np.random.default_rng(2)
    a, b = (random_quantized(rng, "u8", (2, 3, 5, 7)) for _ in range(2))
    expected = reference.add(a, b, (np.uint8, 1.0, 3))
    left, right = as_torch(a), as_torch(b)
    for other in (left, left.contiguous(memory_format=torch.channels_last)):
        y = acl_qlinear.add(other, right, 1.0, 3)
        assert y.is_contiguous() and np.array_equal(y.int_repr().numpy(), expected)
    part = acl_qlinear.add(left.transpose(0, 3)[1], right.transpose(0, 3)[1], 1.0, 3)
    assert np.array_equal(part.int_repr().numpy(), expected.transpose(3, 1, 2, 0)[1])


U8, S8 = quantized(np.ones((2, 3), np.uint8), 1.0, 0), quantized(np.ones((2, 3), np.int8), 1.0, 0)
BY_CHANNEL = torch.quantize_per_channel(torch.ones(2, 3), torch.ones(2), torch.zeros(2), 0, torch.quint8)


TINY, SMALL = (quantized(np.ones((2, 3), np.uint8), scale, 0) for scale in (1e-40, 0.001))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            TypeError,
            r"a is Float \[2, 3\] on cpu, expected a quint8 or qint8 CPU tensor",
            (torch.ones(2, 3), U8, 1.0, 0),
        ),
        (TypeError, r"b is Float \[2, 3\] on cpu, expected a QUInt8 CPU tensor, as a", (U8, torch.ones(2, 3), 1.0, 0)),
        (TypeError, r"b is QInt8 \[2, 3\] on cpu, expected a QUInt8 CPU tensor, as a", (U8, S8, 1.0, 0)),
        (ValueError, r"b has shape \[3\], expected \[2, 3\], as a: nothing is broadcast", (U8, U8[0], 1.0, 0)),
        (ValueError, "a is .* for each channel, expected one quantized per tensor", (BY_CHANNEL, U8, 1.0, 0)),
        (ValueError, "b is .* for each channel, expected one quantized per tensor", (U8, BY_CHANNEL, 1.0, 0)),
        (ValueError, "output_scale is 0, expected a number from", (U8, U8, 0.0, 0)),
        (ValueError, "output_scale is nan, expected a number from", (U8, U8, float("nan"), 0)),
        (ValueError, "output_zero_point is 256, expected 0 to 255 for uint8", (U8, U8, 1.0, 256)),
        (ValueError, "output_zero_point is -129, expected -128 to 127 for int8", (S8, S8, 1.0, -129)),
        (ValueError, "b_scale is 1e-40, expected a number from", (U8, TINY, 1.0, 0)),
        (ValueError, "input scale / output scale is not a normal fp32 number: the input", (SMALL, SMALL, 8e37, 0)),
    ],
)
def test_wrong_arguments(error, message, arguments):
    with pytest.raises(error, match=f"acl_qlinear::add: {message}"):
        acl_qlinear.add(*arguments)


class Residual(nn.Module):
    """A block with all sums that there are: with ReLU, without, with broadcasting, with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.a, self.b = nn.Linear(24, 24), nn.Linear(24, 24)
        self.first, self.second, self.third, self.fourth = (nnq.FloatFunctional() for _ in range(4))

    def forward(self, x):
        x = self.quant(x)
        x = self.first.add_relu(self.a(x), x)
        x = self.second.add(self.b(x), x)
        x = self.third.add(x, x[:1])
        return self.dequant(self.fourth.add_scalar(x, 0.5))


X = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))


def make_residual(mode: str) -> nn.Module:
    """With PyTorch's own default of AArch64, which has a kernel for each of these sums."""
    torch.manual_seed(0)
    model = Residual().eval()
    if mode == "eager":
        model.qconfig = tq.get_default_qconfig("qnnpack")
        prepared = tq.prepare(model)
        prepared(X)
        return tq.convert(prepared)
    prepared = prepare_fx(model, tq.get_default_qconfig_mapping("qnnpack"), (X,))
    prepared(X)
    return convert_fx(prepared)


def sums_of(model, x, monkeypatch):
    """What the model returns, and how often `acl_qlinear.add` was called."""
    calls = []
    operator = sums._ours
    with monkeypatch.context() as patch:
        patch.setattr(sums, "_ours", lambda *arguments: calls.append(arguments) or operator(*arguments))
        return model(x), len(calls)


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_sums_of_residual_blocks(mode, monkeypatch):
    """Each of PyTorch's sums and layers may be one step off, and hand that on."""
    theirs = make_residual(mode)
    expected = theirs(X)
    ours = acl_qlinear.convert(theirs)
    y, calls = sums_of(ours, X, monkeypatch)
    # Not the sum with another shape.
    assert calls == 2
    scale = max(float(value) for name, value in theirs.state_dict().items() if name.endswith("scale"))
    torch.testing.assert_close(y, expected, rtol=0, atol=3.1 * scale)
    assert (y - expected).ne(0).float().mean() < 0.05
    assert sums_of(theirs, X, monkeypatch)[1] == 0
    for other in (copy.deepcopy(ours), torch.load(as_saved(ours), weights_only=False), acl_qlinear.convert(ours)):
        again, calls = sums_of(other, X, monkeypatch)
        assert torch.equal(again, y) and calls == 2
    in_place = acl_qlinear.convert(theirs, inplace=True)
    assert in_place is theirs and torch.equal(theirs(X), y)


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_states_and_torchscript(mode):
    theirs = make_residual(mode)
    ours = acl_qlinear.convert(theirs)
    y = ours(X)
    other = acl_qlinear.convert(make_residual(mode))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other(X), y)
    scripted = torch.jit.script(ours)
    assert torch.equal(scripted(X), y) and "acl_qlinear::add" in str(scripted.inlined_graph)


def test_a_functional_of_ones_own_stays():
    class Own(nnq.QFunctional):
        pass

    model = nn.ModuleList([Own(), nnq.QFunctional()])
    assert list(map(type, acl_qlinear.convert(model))) == [Own, sums.QFunctional]
