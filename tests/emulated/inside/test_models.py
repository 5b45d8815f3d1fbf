# SPDX-License-Identifier: MIT
"""Models that PyTorch quantized: taking over, saving."""

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.quantization as tq
from helpers import under
from torch import nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import acl_qlinear


class Model(nn.Module):
    """Linear layers with and without bias and ReLU, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.a, self.relu = nn.Linear(40, 24), nn.ReLU()
        self.rest = nn.Sequential(nn.Linear(24, 17, bias=False), nn.Linear(17, 17))

    def forward(self, x):
        x = self.rest(self.relu(self.a(self.quant(x))))
        return self.dequant(self.rest[1](x))


X = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return Model().eval()


def eager_static(engine: str) -> nn.Module:
    """engine: "x86" is per channel, "qnnpack" per tensor."""
    model = tq.fuse_modules(make_model(), [["a", "relu"]])
    model.qconfig = tq.get_default_qconfig(engine)
    tq.prepare(model, inplace=True)(X)
    return tq.convert(model)


def eager_dynamic(qconfig: tq.QConfig) -> nn.Module:
    return tq.quantize_dynamic(make_model(), {nn.Linear: qconfig})


def fx(mapping: tq.QConfigMapping) -> nn.Module:
    prepared = prepare_fx(make_model(), mapping, (X,))
    prepared(X)
    return convert_fx(prepared)


TORCH_MODELS = {
    "eager static per channel": lambda: eager_static("x86"),
    "eager static per tensor": lambda: eager_static("qnnpack"),
    "eager dynamic per channel": lambda: eager_dynamic(tq.per_channel_dynamic_qconfig),
    "eager dynamic per tensor": lambda: eager_dynamic(tq.default_dynamic_qconfig),
    "fx static": lambda: fx(tq.get_default_qconfig_mapping("x86")),
    "fx dynamic": lambda: fx(tq.QConfigMapping().set_global(tq.per_channel_dynamic_qconfig)),
}


def as_saved(value: object, save: Callable[[Any, io.BytesIO], None] = torch.save) -> io.BytesIO:
    file = io.BytesIO()
    save(value, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", TORCH_MODELS)
def test_convert(kind):
    """The same results as PyTorch's layers, to the last place of the output's quantization, on rows that work there."""
    theirs = TORCH_MODELS[kind]()
    ours = acl_qlinear.convert(theirs)
    report = acl_qlinear.report(ours)
    assert len(report.replaced) == 3 and not report.others, report
    assert acl_qlinear.report(theirs).replaced == []
    assert all("has not been called" in row.status for row in acl_qlinear.report(theirs).rows)
    scales = [module.scale for module in ours.modules() if isinstance(module, acl_qlinear.Linear)]
    # Each of the four layers may be one step off and hand that on.
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-5, atol=2.1 * max(scales) if scales else 1e-5)
    assert (ours(X) - theirs(X)).ne(0).float().mean() < 0.05 or not scales
    assert not any(isinstance(m, acl_qlinear.PackedLinear) for m in theirs.modules())
    in_place = acl_qlinear.convert(theirs, inplace=True)
    assert in_place is theirs and torch.equal(theirs(X), ours(X))


@pytest.mark.parametrize("kind", TORCH_MODELS)
def test_saving(kind):
    """Pickles, state_dicts and copies of a converted model compute the same."""
    model = acl_qlinear.convert(TORCH_MODELS[kind]())
    expected = model(X)
    assert torch.equal(copy.deepcopy(model)(X), expected)
    assert torch.equal(torch.load(as_saved(model), weights_only=False)(X), expected)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, acl_qlinear.PackedLinear)}
    for name, layer in layers.items():
        state = torch.load(as_saved(layer.state_dict()), weights_only=True)
        other = copy.deepcopy(layer)
        zeros = [torch.zeros_like(t) if t is not None else None for t in acl_qlinear.unpack(layer.packed)]
        zeros[1] += 1
        other.packed = acl_qlinear.prepack_int8(*zeros)
        assert not torch.equal(other.packed, layer.packed), name
        other.load_state_dict(state)
        assert torch.equal(other.packed, layer.packed), name
        assert other.extra_repr() == layer.extra_repr()
    theirs = TORCH_MODELS[kind]().get_submodule("rest.0")
    assert torch.equal(layers["rest.0"].weight().int_repr(), theirs.weight().int_repr())
    assert layers["rest.0"].bias() is None and layers["a"].bias().shape == (24,)


def test_saved_models_load_everywhere():
    """Each prefix saves here and loads what was saved before, by the other builds and PyTorches."""
    folder = Path(os.environ["EXCHANGE"])
    files = list(folder.glob("*.pt"))
    for file in files:
        saved = torch.load(file, weights_only=False)
        for model, state, fresh, expected in saved:
            assert torch.equal(model(X), expected), file
            fresh.load_state_dict(state)
            assert torch.equal(fresh(X), expected), file
    mine = []
    for kind in ("eager static per channel", "eager dynamic per tensor"):
        model = acl_qlinear.convert(TORCH_MODELS[kind]())
        fresh = copy.deepcopy(model)
        state = model.state_dict()
        mine.append((model, state, fresh, model(X)))
    # Tests inside another prefix may be looking.
    partial = folder / f"{os.environ['EXCHANGE_AS']}.partial"
    torch.save(mine, partial)
    partial.rename(partial.with_suffix(""))
    print(f"\nloaded {len(files)}")


def test_fused_activations_of_pytorch():
    import torch.ao.nn.intrinsic.quantized as nniq

    weight = torch.quantize_per_channel(
        torch.randn(24, 40) / 6, torch.full((24,), 0.004), torch.zeros(24).long(), 0, torch.qint8
    )
    x = torch.quantize_per_tensor(torch.randn(9, 40), 0.02, 120, torch.quint8)
    for theirs, activation in (
        (nniq.LinearReLU(40, 24), "relu"), (nniq.LinearLeakyReLU(40, 24, 0.3), "leaky_relu"),
        (nniq.LinearTanh(40, 24), "tanh"),
    ):  # fmt: skip
        theirs.set_weight_bias(weight, torch.randn(24))
        theirs.scale, theirs.zero_point = 1 / 64, 100
        ours = acl_qlinear.Linear.from_torch(theirs)
        assert ours.activation == activation
        difference = (ours(x).int_repr().int() - theirs(x).int_repr().int()).abs()
        assert difference.max() <= 1 and difference.float().mean() < 0.02, activation


def test_report_says_why():
    class Other(nn.Linear):
        pass

    float16 = tq.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), dtype=torch.float16)[0] if fp16_works() else None
    infinite = torch.ao.nn.quantized.dynamic.Linear(4, 4)
    infinite.set_weight_bias(infinite.weight(), torch.full((4,), torch.inf))
    model = nn.Sequential(nn.Linear(4, 4), Other(4, 4), infinite, *([float16] if float16 else []))
    report = acl_qlinear.report(acl_qlinear.convert(model))
    status = [row.status for row in report.rows]
    assert "acl_qlinear.quantize(model)" in status[0] and "a subclass of torch.nn.Linear" in status[1]
    assert "bias[0] is inf" in status[2]
    if float16:
        assert "torch.float16, expected torch.qint8" in status[3]
    assert str(report).splitlines()[-1] == f"0 of {len(status)} linear layers are on ACL"
    graph = acl_qlinear.report(torch.export.export(nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 4),)).module())
    assert ("linear", "aten::linear", "a function in a graph, not a module") in [
        (row.name, row.kind, row.status) for row in graph.rows
    ]


@pytest.mark.parametrize("kind", ["eager static per tensor", "eager dynamic per channel"])
def test_layers_with_more_than_weight_and_bias_stay(kind):
    model = TORCH_MODELS[kind]()
    model.a.adapter = nn.Identity()
    model.rest[0].register_buffer("gain", torch.ones(1))
    report = acl_qlinear.report(acl_qlinear.convert(model))
    reasons = {row.name: row.status for row in report.others}
    expected = "it has {}, expected nothing besides weight and bias"
    assert reasons == {"a": expected.format("adapter"), "rest.0": expected.format("gain")}


def fp16_works() -> bool:
    try:
        torch.ao.nn.quantized.dynamic.Linear(4, 4, dtype=torch.float16)
    except RuntimeError:
        return False  # built without FBGEMM
    return True


def test_bad_module():
    with pytest.raises(TypeError, match=r"module is a torch\.nn\..*Linear, expected a torch\.ao\.nn\.quantized"):
        acl_qlinear.Linear.from_torch(nn.Linear(4, 4))
    with pytest.raises(TypeError, match=r"expected a torch\.ao\.nn\.quantized\.dynamic"):
        acl_qlinear.DynamicLinear.from_torch(nn.Linear(4, 4))


@pytest.mark.parametrize("engine", [name for name in torch.backends.quantized.supported_engines if name != "none"])
def test_convert_reduces_the_range_where_pytorch_does(engine):
    """Seen by the error: that of 7 bits is twice that of 8."""
    with under(engine):
        theirs = eager_dynamic(tq.per_channel_dynamic_qconfig)
    ours = acl_qlinear.convert(theirs)
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-5, atol=1e-5)
    reduced = [m.reduce_range for m in ours.modules() if isinstance(m, acl_qlinear.DynamicLinear)]
    assert reduced == [engine != "qnnpack"] * 3
    for layer in (m for m in ours.modules() if isinstance(m, acl_qlinear.DynamicLinear)):
        layer.reduce_range = not layer.reduce_range
    assert (ours(X) - theirs(X)).abs().max() > 1e-3
