# SPDX-License-Identifier: MIT
"""Sums of quantized tensors: the operator, and models that PyTorch quantized."""

import copy
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as nnq
import torch.ao.quantization as tq
from helpers import INTEGER, QUANTIZED, given, quantized, under
from test_models import as_saved
from torch import fx, nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import acl_qlinear
from acl_qlinear import reference, sums
from acl_qlinear._load import BUILD
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
    last = [x.contiguous(memory_format=torch.channels_last) for x in (left, right)]
    for x, y in [(left, right), (last[0], right), (left, last[1]), last]:
        result = acl_qlinear.add(x, y, 1.0, 3)
        assert np.array_equal(result.int_repr().numpy(), expected)
        keeps_layout = x.stride() == y.stride() and not BUILD.stable_abi
        assert result.stride() == (x if keeps_layout else left).stride()
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


THEIRS = {"add": torch.ops.quantized.add, "add_relu": torch.ops.quantized.add_relu}
OURS = {"add": torch.ops.acl_qlinear.quantized_add, "add_relu": torch.ops.acl_qlinear.quantized_add_relu}


@pytest.fixture
def qnnpack():
    """PyTorch's engine that has a kernel for each sum, in which ties do not go to even."""
    with under("qnnpack"):
        yield


@pytest.mark.parametrize("name", OURS)
def test_sums_of_pytorch_are_exact(name, qnnpack):
    rng = np.random.default_rng(3)
    a, b = (Quantized(random_values(rng, "u8", (40, 500)), 0.015, 130) for _ in range(2))
    expected = reference.add(a, b, (np.uint8, 0.03, 120), name == "add_relu")
    y, other = (sums_of_one[name](as_torch(a), as_torch(b), 0.03, 120) for sums_of_one in (OURS, THEIRS))
    assert np.array_equal(y.int_repr().numpy(), expected)
    difference = np.abs(other.int_repr().numpy().astype(int) - expected)
    # Every second sum is a tie, and every second tie goes to another integer, but for what ReLU cuts off.
    assert difference.max() == 1 and 0.1 < difference.mean() < 0.3


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "arguments",
    [
        (U8, U8[:1], 2.0, 3),
        (quantized(np.ones((2, 3), np.int32), 1.0, 0),) * 2 + (2.0, 3),
        (U8, U8, 2.0, -1),
        (U8, U8.t().contiguous().t(), 2.0, 3),
    ],
    ids=["another shape", "qint32", "zero point", "another layout"],
)
def test_other_sums_are_pytorchs(name, arguments, qnnpack):
    y, expected = OURS[name](*arguments), THEIRS[name](*arguments)
    assert torch.equal(y.int_repr(), expected.int_repr()) and y.stride() == expected.stride()
    assert (y.q_scale(), y.q_zero_point()) == (expected.q_scale(), expected.q_zero_point())


def test_wrong_sums_have_pytorchs_errors():
    for arguments in [(U8, S8, 1.0, 0), (U8, torch.ones(2, 3), 1.0, 0), (BY_CHANNEL, BY_CHANNEL, 1.0, 0)]:
        messages = []
        for operators in (OURS, THEIRS):
            with pytest.raises((RuntimeError, NotImplementedError)) as raised:
                operators["add"](*arguments)
            messages.append(str(raised.value).splitlines()[0])
        assert BUILD.stable_abi or messages[0] == messages[1]


class Residual(nn.Module):
    """Blocks with all sums that there are: with ReLU, without, with broadcasting, with a number, after convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.convolution, self.a, self.b = nn.Conv2d(3, 3, 1), nn.Linear(24, 24), nn.Linear(24, 24)
        self.zeroth, self.first, self.second, self.third, self.fourth = (nnq.FloatFunctional() for _ in range(5))

    def forward(self, x):
        x = self.quant(x)
        x = self.zeroth.add_relu(self.convolution(x), self.convolution(x)).flatten(1)
        x = self.first.add_relu(self.a(x), x)
        x = self.second.add(self.b(x), x)
        x = self.third.add(x, x[:1])
        return self.dequant(self.fourth.add_scalar(x, 0.5))


X = torch.randn(5, 3, 2, 4, generator=torch.Generator().manual_seed(1))


def make_residual(mode: str) -> nn.Module:
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


def sums_of(model, mode):
    """How many of the model's sums are ours, and how many are PyTorch's."""
    if mode == "eager":
        kinds = [type(module) for module in model.modules()]
        return kinds.count(sums.QFunctional), kinds.count(nnq.QFunctional)
    targets = [node.target for node in model.graph.nodes]
    return tuple(sum(target in some.values() for target in targets) for some in (OURS, THEIRS))


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_sums_of_residual_blocks(mode, qnnpack):
    """Each of PyTorch's sums and layers may be one step off, and hand that on."""
    theirs = make_residual(mode)
    expected = theirs(X)
    ours = acl_qlinear.convert(theirs)
    # The one with a number stays in graphs.
    assert sums_of(ours, mode) == {"eager": (5, 0), "fx": (4, 1)}[mode]
    assert sums_of(theirs, mode) == (0, 5)
    y = ours(X)
    scale = max(float(value) for name, value in theirs.state_dict().items() if name.endswith("scale"))
    torch.testing.assert_close(y, expected, rtol=0, atol=4.1 * scale)
    assert (y - expected).ne(0).float().mean() < 0.1
    for other in (copy.deepcopy(ours), acl_qlinear.convert(ours)):
        assert torch.equal(other(X), y) and sums_of(other, mode) == sums_of(ours, mode)
    in_place = acl_qlinear.convert(theirs, inplace=True)
    assert in_place is theirs and torch.equal(theirs(X), y)


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_residual_blocks_in_files_and_graphs(mode, qnnpack):
    ours = acl_qlinear.convert(make_residual(mode))
    y = ours(X)
    other = acl_qlinear.convert(make_residual(mode))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other(X), y)
    scripted = torch.jit.script(ours)
    # Traced with a batch in which nothing is broadcast.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=torch.jit.TracerWarning, message=".*Python boolean.*")
        traced = torch.jit.trace(ours, X[:1])
    for graph in (scripted, traced):
        assert torch.equal(graph(X), y) and "acl_qlinear::quantized_add" in str(graph.inlined_graph)
        assert torch.equal(torch.jit.load(as_saved(graph, torch.jit.save))(X), y)


def test_graphs_of_any_form(qnnpack):
    """Sums with keyword arguments, from tracing a QFunctional; files."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nnq.QFunctional()

        def forward(self, x, y):
            return self.f.add(x, y)

    traced = fx.symbolic_trace(Sum())
    ours = acl_qlinear.convert(traced)
    assert sums_of(ours, "fx") == (1, 0) and sums_of(traced, "fx") == (0, 1)
    loaded = torch.load(as_saved(ours), weights_only=False)
    assert sums_of(loaded, "fx") == (1, 0)
    assert torch.equal(loaded(U8, U8).int_repr(), Sum()(U8, U8).int_repr())


def test_a_functional_of_ones_own_stays():
    class Own(nnq.QFunctional):
        pass

    model = nn.ModuleList([Own(), nnq.QFunctional()])
    assert list(map(type, acl_qlinear.convert(model))) == [Own, sums.QFunctional]
