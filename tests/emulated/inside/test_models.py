# SPDX-License-Identifier: MIT
"""Modules: taking over from PyTorch's, quantizing, saving."""

import copy
import io
import os
import re
from pathlib import Path

import pytest
import torch
import torch.ao.quantization as tq
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


def as_saved(value: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
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


def test_state_dict_of_another_layer():
    layer = acl_qlinear.quantize(nn.Linear(8, 4))
    packed = layer.packed
    with pytest.raises(RuntimeError, match=r"weight has shape \[4, 9\], expected \[4, 8\]"):
        layer.load_state_dict(acl_qlinear.quantize(nn.Linear(9, 4)).state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_scale"):
        layer.load_state_dict({"weight": torch.zeros(4, 8, dtype=torch.int8)})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra"):
        layer.load_state_dict({**layer.state_dict(), "extra": torch.zeros(1)})
    assert torch.equal(layer.packed, packed)


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
    torch.save(mine, folder / os.environ["EXCHANGE_AS"])
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


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "reduced", "static", "min-max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantize(kind, per_channel, dtype):
    model, x = make_model().to(dtype), X.to(dtype)
    options = {
        "dynamic": {}, "reduced": {"reduce_range": True}, "static": {"calibrate": lambda m: m(x)},
        "min-max": {"calibrate": lambda m: m(x), "observer": lambda: tq.MinMaxObserver(dtype=torch.qint8)},
    }[kind]  # fmt: skip
    ours = acl_qlinear.quantize(model, per_channel=per_channel, **options)
    assert not acl_qlinear.report(ours).others
    assert all(len(acl_qlinear.unpack(m.packed)[1]) == (m.out_features if per_channel else 1)
               for m in ours.modules() if isinstance(m, acl_qlinear.PackedLinear))  # fmt: skip
    with torch.no_grad():
        y, expected = ours(x), model(x)
    assert y.dtype == dtype
    assert nn.functional.cosine_similarity(y.flatten().float(), expected.flatten().float(), 0) > 0.999
    assert torch.equal(torch.load(as_saved(ours), weights_only=False)(x), y)
    fresh = acl_qlinear.quantize(Model().to(dtype), per_channel=per_channel, **options)
    fresh.load_state_dict(torch.load(as_saved(ours.state_dict()), weights_only=True))
    assert torch.equal(fresh(x), y)


def test_quantize_a_layer_and_what_calibration_does_not_run():
    layer = nn.Linear(8, 4)
    assert isinstance(acl_qlinear.quantize(layer), acl_qlinear.DynamicLinear) and type(layer) is nn.Linear
    model = nn.ModuleDict({"used": nn.Linear(8, 4), "unused": nn.Linear(8, 4)})
    with pytest.warns(UserWarning, match=re.escape("calibrate() did not run unused: not quantized")):
        quantized = acl_qlinear.quantize(model, calibrate=lambda m: m["used"](torch.randn(3, 8)))
    assert [type(m).__name__ for m in quantized.values()] == ["CalibratedLinear", "Linear"]
    assert not quantized["unused"]._forward_pre_hooks
    with pytest.raises(ValueError, match="reduce_range is True, expected False with calibrate"):
        acl_qlinear.quantize(model, calibrate=lambda m: m, reduce_range=True)
    with pytest.raises(ValueError, match="observer is given without calibrate"):
        acl_qlinear.quantize(model, observer=tq.MinMaxObserver)


def test_quantize_all_layers_or_none():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].bias[2] = torch.nan
    with pytest.raises(ValueError, match=r"layer 1: acl_qlinear::prepack: bias\[2\] is nan"):
        acl_qlinear.quantize(model, inplace=True)
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]


def test_hooks_and_shared_layers_stay():
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    seen = []
    shared.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    ours = acl_qlinear.quantize(model, inplace=True)
    assert ours is model and ours[0] is ours[2]
    ours(torch.randn(2, 8))
    assert seen == [acl_qlinear.DynamicLinear] * 2


def test_transformer_encoder_with_padding():
    """Its fast path would take the weights of its layers."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 5:] = True
    ours = acl_qlinear.quantize(encoder)
    assert len(acl_qlinear.report(ours).replaced) == 4
    with torch.no_grad():
        y, expected = (m(X[..., :32], src_key_padding_mask=padding)[~padding] for m in (ours, encoder))
    assert nn.functional.cosine_similarity(y.flatten(), expected.flatten(), 0) > 0.999
