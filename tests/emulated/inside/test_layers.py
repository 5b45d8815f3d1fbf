# SPDX-License-Identifier: MIT
"""Layers: their state, what a reader of a float layer sees of them, TorchScript, and other processes."""

import copy
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from test_models import X, as_saved
from torch import nn

import acl_qlinear


def layers_of_each_kind(bias: bool = True, seed: int = 0) -> dict[str, acl_qlinear.PackedLinear]:
    """8 to 4 features; other numbers with another seed."""
    torch.manual_seed(seed)
    scales = 0.01 + 0.01 * torch.rand(4, dtype=torch.float64)
    weight = torch.quantize_per_channel(torch.randn(4, 8), scales, torch.zeros(4).long(), 0, torch.qint8)
    b = torch.randn(4) if bias else None
    return {
        "static": acl_qlinear.Linear(weight, b, 0.1 + 0.1 * seed, 3 + seed, "relu"),
        "dynamic": acl_qlinear.DynamicLinear(weight, b, bool(seed), ["gelu", "silu"][seed]),
        "row": acl_qlinear.DynamicLinear(
            weight, b, granularity=["row", "tensor"][seed], symmetric=not seed, narrow_range=not seed
        ),
        "calibrated": acl_qlinear.CalibratedLinear(weight, b, 0.02 + seed, -5 - seed, "leaky_relu", 0.2 + seed),
        "smoothed": acl_qlinear.CalibratedLinear(weight, b, 0.02, -5, pre_scale=0.1 + torch.rand(8)),
    }


KINDS_OF_0_2 = ("static", "dynamic", "row", "calibrated")
KINDS = (*KINDS_OF_0_2, "smoothed")


def everything(layer: acl_qlinear.PackedLinear) -> tuple[object, ...]:
    return (bytes(layer.packed.flatten().tolist()), repr(layer), *(str(value) for value in layer.state_dict().values()))


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_has_all_of_a_layer_and_no_key_of_a_float_one(kind):
    layer, other = layers_of_each_kind()[kind], layers_of_each_kind(seed=1)[kind]
    assert everything(layer) != everything(other)
    assert other.load_state_dict(torch.load(as_saved(layer.state_dict()), weights_only=True)) == ([], [])
    assert everything(layer) == everything(other)
    linear = nn.Linear(8, 4)
    weight = linear.weight.clone()
    missing, unexpected = linear.load_state_dict(layer.state_dict(), strict=False)
    assert missing == ["weight", "bias"] and unexpected == list(layer.state_dict())
    assert torch.equal(linear.weight, weight)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_that_does_not_fit_changes_nothing(kind):
    state = layers_of_each_kind(seed=1)[kind].state_dict()
    biasless = layers_of_each_kind(bias=False)[kind].state_dict()
    infinite, nan = torch.tensor(torch.inf, dtype=torch.float64), torch.tensor(torch.nan, dtype=torch.float64)
    table = [
        ({"weight_int8": torch.zeros(4, 8)}, r"fc.weight_int8 is torch.float32 \[4, 8\], expected an int8 tensor"),
        ({"weight_int8": torch.zeros(4, 9, dtype=torch.int8)}, r"weight_int8 has shape \[4, 9\], expected \[4, 8\]"),
        ({"weight_scale": torch.zeros(4)}, "fc.weight_int8 cannot be packed: .*weight scale 0 is 0"),
        ({"weight_scale": torch.ones(3)}, r"scale has shape \[3\], expected \[1\] or \[4\]"),
        ({"weight_zero_point": torch.full((4,), 300)}, "zero point 0 is 300"),
        ({"bias_fp32": torch.full((4,), torch.nan)}, r"bias\[0\] is nan"),
        ({"bias_fp32": torch.zeros(5)}, r"bias has shape \[5\]"),
        (
            {"pre_scale": torch.zeros(9)},
            r"fc.weight_int8 cannot be packed: .*pre_scale has shape \[9\], expected \[8\]",
        ),
        ({"pre_scale": torch.full((8,), torch.nan)}, r"pre_scale\[0\] is nan"),
        ({"pre_scale": torch.ones(8).long()}, "pre_scale is Long"),
        ({"activation": torch.tensor(7)}, "fc.activation is 7, expected 0 to 6"),
        ({"activation": torch.zeros(2)}, r"fc.activation is torch.float32 \[2\], expected a tensor with one number"),
        ({"negative_slope": nan}, "fc.negative_slope is nan, expected a finite number"),
        *(({name: infinite}, rf"fc.{name} is inf, expected a number from 2\^-126") for name in ("scale", "x_scale")),
        ({"zero_point": torch.tensor(300)}, "fc.zero_point is 300, expected -128 to 255"),
        ({"x_zero_point": torch.tensor(128)}, "fc.x_zero_point is 128, expected -128 to 127"),
        ({"reduce_range": torch.tensor(1)}, "fc.reduce_range is torch.int64, expected torch.bool"),
        ({"granularity": torch.tensor(2)}, "fc.granularity is 2, expected 0 to 1"),
        ({"symmetric": torch.tensor(1)}, "fc.symmetric is torch.int64, expected torch.bool"),
        (
            {"granularity": torch.tensor(1), "reduce_range": torch.tensor(True)},
            "fc.reduce_range is True, expected False with granularity 'row'",
        ),
        ({"symmetric": torch.tensor(True)}, "fc.symmetric is True, expected False with granularity 'tensor'"),
        (
            {"granularity": torch.tensor(1), "reduce_range": torch.tensor(False), "narrow_range": torch.tensor(True)},
            "fc.narrow_range is True, expected False without symmetric=True",
        ),
        ({"weight_scale": None}, "Missing key.*fc.weight_scale"),
        ({"extra": torch.zeros(1)}, "Unexpected key.*fc.extra"),
    ]
    for changes, error in table:
        model = nn.ModuleDict({"fc": layers_of_each_kind()[kind]})
        before = everything(model["fc"])
        changed = {f"fc.{k}": v for k, v in {**state, **changes}.items() if v is not None}
        if not changes.keys() <= {*state, "extra"}:
            continue  # another kind's
        with pytest.raises(RuntimeError, match=error):
            model.load_state_dict(changed)
        assert everything(model["fc"]) == before or "extra" in changes, changes
    with pytest.raises(RuntimeError, match=r"Missing key.*bias_fp32"):
        layers_of_each_kind()[kind].load_state_dict(biasless)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias_fp32"):
        layers_of_each_kind(bias=False)[kind].load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_state_dict(kind):
    """strict=False takes the weight as one, or not; and each of the rest."""
    state = layers_of_each_kind(seed=1)[kind].state_dict()
    weight = {"weight_int8", "weight_scale", "weight_zero_point", "pre_scale"} & set(state)
    for names in (
        weight,
        weight - {"pre_scale"},
        {"bias_fp32"},
        {"pre_scale"} & set(state),
        set(state) - weight,
        set(state) - {"weight_scale"},
        {"activation"},
        set(),
    ):
        layer = layers_of_each_kind()[kind]
        taken = names if names & weight in (weight, set()) else ()
        expected = {**layer.state_dict(), **{name: state[name] for name in taken}}
        layer.load_state_dict({name: state[name] for name in names}, strict=False)
        assert all(torch.equal(value, expected[name]) for name, value in layer.state_dict().items()), names


def test_a_weight_and_its_pre_scale_go_together():
    smoothed, plain = (layers_of_each_kind()[kind] for kind in ("smoothed", "calibrated"))
    for layer, other in ((smoothed, plain), (plain, smoothed)):
        before = everything(layer)
        with pytest.raises(RuntimeError, match=r"(Missing|Unexpected) key.*pre_scale"):
            layer.load_state_dict(other.state_dict())
        assert everything(layer) == before
        missing, unexpected = layer.load_state_dict(other.state_dict(), strict=False)
        assert missing + unexpected == ["pre_scale"] and everything(layer) == before
    for name in ("pre_scale", "bias_fp32", "weight_scale"):
        with pytest.raises(RuntimeError, match=f"{name} is NoneType, expected a tensor"):
            smoothed.load_state_dict({**smoothed.state_dict(), name: None})


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS_OF_0_2)
def test_state_dict_that_version_0_2_saved(kind, bias):
    layer, other = layers_of_each_kind(bias)[kind], layers_of_each_kind(bias, seed=1)[kind]
    state = layer.state_dict()
    old = {key.removesuffix("_int8").removesuffix("_fp32"): state[key] for key in state}
    for name in ("activation", "negative_slope", "reduce_range", "granularity", "symmetric", "narrow_range"):
        old.pop(name, None)
    other.load_state_dict(old)
    kept = layers_of_each_kind(bias, seed=1)[kind].state_dict()
    expected = {key: (state if key in old or key.startswith(("weight", "bias")) else kept)[key] for key in state}
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_layers_that_version_0_2_pickled():
    """They had no granularity and no pre-scale."""
    layer = acl_qlinear.quantize(nn.Linear(8, 4))
    new = type(layer).__new__(type(layer))
    added = ("granularity", "symmetric", "narrow_range", "has_pre_scale")
    state = {name: value for name, value in layer.__getstate__().items() if name not in added}
    new.__setstate__({**state, "packed": state["packed"][:4]})
    x = torch.randn(3, 8)
    for other in (new, torch.jit.script(new), pickle.loads(pickle.dumps(new))):
        assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_without_memory_or_with_any_can_be_loaded(kind):
    layer = layers_of_each_kind()[kind]
    state = layer.state_dict()
    for assign in (False, True):
        meta = layers_of_each_kind(seed=1)[kind].to("meta")
        copied = copy.deepcopy(meta)
        shapes = {key: value.shape for key, value in meta.state_dict().items()}
        assert shapes == {key: value.shape for key, value in state.items()} and copied.packed.is_meta
        for other in (meta, copied.to_empty(device="cpu")):
            other.load_state_dict(state, assign=assign)
            assert everything(other) == everything(layer)
    with pytest.raises(RuntimeError, match="bias_fp32 cannot be packed"):
        layers_of_each_kind()[kind].to("meta").load_state_dict({"bias_fp32": torch.zeros(4)}, strict=False)


@pytest.mark.parametrize(
    ("dtype", "is_static"), [(torch.float32, False), (torch.bfloat16, True), (torch.float16, False)]
)
def test_weight_and_bias_are_what_a_reader_of_a_float_layer_expects(dtype, is_static):
    fc = nn.Linear(40, 24).to(dtype)
    layer = acl_qlinear.quantize(fc, (lambda m: m(X.to(dtype))) if is_static else None)
    codes, scale, _, bias = acl_qlinear.unpack(layer.packed)
    values = {"weight": (codes * scale.float()[:, None]).to(dtype), "bias": bias.to(dtype)}
    x = torch.ones(3, 40, dtype=dtype)
    for name, value in values.items():
        uses = [
            lambda t: t.dtype, lambda t: t.shape, lambda t: t.size(), lambda t: t.device, lambda t: t.ndim, len,
            lambda t: t.requires_grad, lambda t: isinstance(t, torch.Tensor), lambda t: t.is_floating_point(),
            lambda t: t.detach().clone(), lambda t: t.data + 0, lambda t: t.data.float().numpy(), lambda t: t.float(),
            lambda t: t.t(), lambda t: t[1:3], lambda t: t.tolist(), lambda t: torch.cat([t, t]), lambda t: t + 1, repr,
            lambda t: nn.functional.linear(x, t) if t.ndim == 2 else x[:, :24] + t, copy.deepcopy, list, torch.clone,
            lambda t: pickle.loads(pickle.dumps(t)), lambda t: t.to(torch.float64), lambda t: torch.zeros_like(t),
        ]  # fmt: skip
        for i, use in enumerate(uses):
            got, expected = use(getattr(layer, name)), use(value)
            assert type(got) is type(expected) and str(got) == str(expected), (name, i, got, expected)
        for change in (
            lambda t: t.mul_(2), nn.init.zeros_, lambda t: t.__setitem__(0, 1.0), lambda t: t.copy_(t),
            lambda t: t.data.mul_(2), lambda t: t.detach().zero_(), lambda t: setattr(t, "data", torch.zeros(1)),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="is read-only"):
                change(getattr(layer, name))
        with pytest.raises(AttributeError, match=f"{name} of an int8 layer is read-only"):
            setattr(layer, name, nn.Parameter(value))
    assert acl_qlinear.quantize(nn.Linear(40, 24, bias=False)).bias is None
    # Neither is it kept, nor computed to know its dtype.
    assert [name for name, value in vars(layer).items() if isinstance(value, torch.Tensor)] == ["packed"]
    layer.packed.zero_()
    assert layer.weight.dtype == dtype and layer.bias.shape == (24,)
    with pytest.raises(ValueError, match="packed is not usable"):
        layer.weight.sum()


class Readers(nn.Module):
    """Code that reads weights, as T5's and LoRA's."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(40, 24), nn.Linear(40, 8)

    def forward(self, x):
        x = x.to(self.q.weight.dtype)
        weight, bias = (torch.cat([getattr(fc, name) for fc in (self.q, self.k)]) for name in ("weight", "bias"))
        return torch.cat([self.q(x), self.k(input=x)], -1), nn.functional.linear(x, weight, bias)


def test_readers_of_weights_in_graphs():
    ours = acl_qlinear.quantize(Readers().eval(), calibrate=lambda m: m(X))
    y, fused = ours(X)
    torch.testing.assert_close(y, fused, rtol=0, atol=0.03)
    torch._dynamo.reset()
    for other in (
        torch.compile(ours, backend="aot_eager", fullgraph=True), torch.export.export(ours, (X,)).module(),
        torch.export.export(ours, (X,), strict=True).module(), torch.jit.trace(ours, (X,)),
    ):  # fmt: skip
        torch.testing.assert_close(other(X), (y, fused), rtol=0, atol=1e-5)
    packed = ours.q.packed
    for operator, shape in ((torch.ops.acl_qlinear_layers.float_weight, [24, 40]),
                            (torch.ops.acl_qlinear_layers.float_bias, [24])):  # fmt: skip
        torch.library.opcheck(operator.default, (packed, shape, torch.bfloat16))


def test_inputs_of_layers():
    x = X[0, :, :8]
    for kind, layer in layers_of_each_kind().items():
        if kind != "static":
            assert torch.equal(layer(input=x), layer(x))
            for bad in (x.char(), x.byte(), x > 0, torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)):
                with pytest.raises(TypeError, match=r"x is .*, expected a float32, bfloat16 or float16"):
                    layer(bad)
    with pytest.raises(ValueError, match="activation is 'selu', expected one of none, relu"):
        acl_qlinear.DynamicLinear(layer._quantized_weight(), None, activation="selu")


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript(kind):
    """script, trace, freeze, and what was saved and loaded compute the same."""
    model = nn.Sequential(layers_of_each_kind()[kind]).eval()
    x = X[0, :, :8]
    inputs = [torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)] if kind == "static" else [x, x.bfloat16(), x.half()]
    for script in (torch.jit.script(model), torch.jit.trace(model, (inputs[0],))):
        for module in (script, torch.jit.freeze(script)):
            for other in (module, torch.jit.load(as_saved(module, torch.jit.save))):
                for x in inputs:
                    assert torch.equal(other(x), model(x)) and other(x).dtype == model(x).dtype


@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights_are_shared_between_processes_and_not_saved(kind):
    layer = layers_of_each_kind()[kind]
    assert not layer.packed.is_shared()
    assert nn.Sequential(layer).share_memory()[0].packed.is_shared()
    received = ForkingPickler.loads(ForkingPickler.dumps(layer))
    assert everything(received) == everything(layer)
    last = layer.packed[-1, -1].item()
    child = os.fork()
    if child == 0:
        layer.packed[-1, -1] = last ^ 1
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert layer.packed[-1, -1] == received.packed[-1, -1] == last ^ 1
    layer.packed[-1, -1] = last
    saved = pickle.loads(pickle.dumps(layer))
    assert not saved.packed.is_shared() and everything(saved) == everything(layer)


def test_dtypes_of_modules_as_of_float_ones():
    for convert in (nn.Module.half, nn.Module.bfloat16, nn.Module.double, nn.Module.cpu, lambda m: m.to("meta")):
        fc = nn.Linear(8, 4)
        layer = convert(acl_qlinear.quantize(fc))
        fc = convert(fc)
        assert (layer.weight.dtype, layer.weight.device) == (fc.weight.dtype, fc.weight.device)
        assert layer.packed.dtype == torch.uint8 and layer.packed.device == fc.weight.device
    layer = acl_qlinear.quantize(nn.Linear(8, 4)).type(torch.float64)
    assert layer.packed.dtype == torch.uint8 and layer.weight.dtype == torch.float64
