# SPDX-License-Identifier: MIT
"""quantize and report: which layers are taken, and what is said of the others."""

import contextlib
import re
import types
import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.ao.quantization as tq
from test_models import Model, X, as_saved, make_model
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import acl_qlinear


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "reduced", "row", "symmetric", "static", "min-max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantize(kind, per_channel, dtype):
    model, x = make_model().to(dtype), X.to(dtype)
    options = {
        "dynamic": {}, "reduced": {"reduce_range": True}, "row": {"granularity": "row"},
        "symmetric": {"granularity": "row", "symmetric": True}, "static": {"calibrate": lambda m: m(x)},
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """A layer keeps the dtype of its input, which float layers before it may have changed."""
    model = make_model()
    for options in ({}, {"granularity": "row"}, {"calibrate": lambda m: m(X)}):
        for skip in ([], [acl_qlinear.report(model).rows[0].name]):
            ours = acl_qlinear.quantize(model, skip=skip, **options)
            with torch.no_grad(), torch.autocast("cpu", dtype):
                y, expected = ours(X), model(X)
            assert y.dtype == (dtype if skip else torch.float32)
            assert nn.functional.cosine_similarity(y.flatten().float(), expected.flatten().float(), 0) > 0.999


@contextlib.contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_observers_run_without_detours():
    """Under a torch.device, every operation of HistogramObserver's search would go through Python."""
    modes = []

    class Observer(tq.MinMaxObserver):
        def calculate_qparams(self):
            modes.append(torch._C._len_torch_function_stack())
            return super().calculate_qparams()

    acl_qlinear.quantize(make_model(), calibrate=lambda model: model(X), observer=lambda: Observer(dtype=torch.qint8))
    assert modes and not any(modes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
def test_the_defaults_of_the_process_change_nothing(dtype, device):
    """Models that load in bfloat16, or for another device, leave these defaults set."""
    seen = []

    def calibrate(model):
        seen.append((torch.get_default_dtype(), torch.empty(0).device.type))
        model(X)

    def results():
        ours = [
            acl_qlinear.quantize(model),
            acl_qlinear.quantize(model, per_channel=False, calibrate=calibrate),
            acl_qlinear.quantize(model, calibrate=calibrate, observer=lambda: tq.MinMaxObserver(dtype=torch.qint8)),
            acl_qlinear.convert(theirs),
        ]
        return [m(X) for m in ours], [m.state_dict() for m in ours], [str(acl_qlinear.report(m)) for m in ours]

    model = make_model()
    theirs = tq.quantize_dynamic(model, {nn.Linear})
    outputs, states, reports = results()
    seen.clear()
    with defaults(dtype, device):
        in_another = results()
    assert seen == [(dtype, device)] * 2, "calibrate() runs with the defaults of the process"
    assert all(map(torch.equal, outputs, in_another[0])) and reports == in_another[2]
    for state, other in zip(states, in_another[1], strict=True):
        assert state.keys() == other.keys()
        for key, value in state.items():
            assert other[key].dtype == value.dtype and torch.equal(other[key], value), key


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


@contextlib.contextmanager
def left(*names_and_reasons: tuple[str, str]) -> Iterator[None]:
    """One warning, of these layers in this order and of no other, is given; none for none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [str(w.message) for w in caught if "acl_qlinear" in str(w.message)]
    assert len(ours) == bool(names_and_reasons), ours
    lines = "".join(ours).splitlines()[1:]
    assert len(lines) == len(names_and_reasons), lines
    for line, (name, reason) in zip(lines, names_and_reasons, strict=True):
        assert line.startswith(f"  {name}: ") and re.search(reason, line), (line, name, reason)


def test_quantize_a_layer():
    layer = nn.Linear(8, 4)
    assert isinstance(acl_qlinear.quantize(layer), acl_qlinear.DynamicLinear) and type(layer) is nn.Linear
    with pytest.raises(ValueError, match="reduce_range is True, expected False with calibrate"):
        acl_qlinear.quantize(layer, calibrate=lambda m: m, reduce_range=True)
    with pytest.raises(ValueError, match="granularity is 'row', expected 'tensor' with calibrate"):
        acl_qlinear.quantize(layer, calibrate=lambda m: m, granularity="row")
    with pytest.raises(ValueError, match="symmetric is True, expected False with granularity 'tensor'"):
        acl_qlinear.quantize(layer, symmetric=True)
    with pytest.raises(ValueError, match="observer is given without calibrate"):
        acl_qlinear.quantize(layer, observer=tq.MinMaxObserver)


@pytest.mark.parametrize("observer", [None, lambda: tq.MinMaxObserver(dtype=torch.qint8)])
def test_calibration_takes_what_it_saw_and_names_the_rest(observer):
    x = torch.randn(6, 8)
    bad = {"nan": x.clone(), "infinity": x.clone()}
    bad["nan"][5, 7], bad["infinity"][0, 0] = torch.nan, -torch.inf
    inputs = {
        "one": [x], "keyword": [x], "with_empty": [x[:0], x, x[:0]], "with_zeros": [x * 0, x], "constant": [x * 0 + 1],
        "large": [x * 1e30], "empty": [x[:0]], "zeros": [x * 0], "too_large": [x / x.abs().max() * 3e38],
        **{name: [x, value] for name, value in bad.items()}, "never": [],
    }  # fmt: skip
    if observer is None:  # which takes seconds, emulated
        inputs = {name: inputs[name] for name in ("one", "empty", "nan")}
    model = nn.ModuleDict({name: nn.Linear(8, 4) for name in inputs})

    def calibrate(model):
        with torch.inference_mode():
            for name, batches in inputs.items():
                for batch in batches:
                    model[name](**{"input": batch}) if name == "keyword" else model[name](batch)

    reasons = [("empty", "did not run it, or with empty inputs"), ("zeros", "all zeros"), ("too_large", "beyond float"),
               ("nan", "NaN, infinity"), ("infinity", "NaN, infinity"), ("never", "did not run it")]  # fmt: skip
    reasons = [reason for reason in reasons if reason[0] in inputs]
    with left(*reasons):
        ours = acl_qlinear.quantize(model, calibrate, observer=observer)
    assert {row.name for row in acl_qlinear.report(ours).others} == {name for name, _ in reasons}
    for name, layer in ours.items():
        sample = inputs[name][-1] if name in ("large", "constant") else x
        y, expected = layer(sample), model[name](sample)
        limit = 0 if name in dict(reasons) else 0.05 * expected.abs().max()
        assert (y - expected).abs().max() <= limit, name
        assert not layer._forward_pre_hooks and not layer._forward_pre_hooks_with_kwargs


def test_observers_that_do_not_fit_are_refused_before_calibration():
    model = nn.Sequential(nn.Linear(8, 4))

    def never(model):
        raise AssertionError

    class Broken(tq.MinMaxObserver):
        def forward(self, x):
            raise ZeroDivisionError("no")

    for observer, error in (
        (tq.HistogramObserver, "observer is for torch.quint8, expected torch.qint8"),
        (tq.MinMaxObserver.with_args(dtype=torch.qint32), "observer is for torch.qint32"),
        (tq.PlaceholderObserver, "observer is for torch.float32"),
        (tq.PerChannelMinMaxObserver.with_args(dtype=torch.qint8), "observer is for torch.per_channel_affine"),
        (nn.Identity, "observer is for None"),
    ):
        with pytest.raises(ValueError, match=error):
            acl_qlinear.quantize(model, never, observer=observer, inplace=True)
    with pytest.raises(RuntimeError, match="the observer of layer 0 failed: no"):
        acl_qlinear.quantize(model, lambda m: m(X[..., :8]), observer=lambda: Broken(dtype=torch.qint8), inplace=True)
    assert type(model[0]) is nn.Linear and not model[0]._forward_pre_hooks


class Casting(nn.Linear):
    """As Whisper's."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


def with_(change, K=8, N=4, **options):
    layer = nn.Linear(K, N, **options)
    with torch.no_grad():
        change(layer)
    return layer


def overridden(layer):
    layer.forward = types.MethodType(lambda self, x: nn.Linear.forward(self, x) + 1, layer)


def fill(part, value):
    part.fill_(value)


PERMANENT = "computed on each call: make it permanent with "
ODD_LAYERS = {
    "pruned": (lambda: with_(lambda m: prune.l1_unstructured(m, "weight", 0.5)), PERMANENT + r"torch.*prune.remove\("),
    "pruned bias": (lambda: with_(lambda m: prune.random_unstructured(m, "bias", 0.5)), r"remove\(layer, 'bias'\)"),
    "weight norm": (lambda: weight_norm(nn.Linear(8, 4)), PERMANENT + r"torch.nn.utils.remove_weight_norm"),
    "spectral norm": (lambda: spectral_norm(nn.Linear(8, 4)), PERMANENT + r"torch.nn.utils.remove_spectral_norm"),
    "new weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 4)), "computes its weight: remove_parametri"),
    "new spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 4)), "computes its weight: remove_param"),
    "overridden": (lambda: with_(overridden), "its forward was replaced"),
    "parameter": (lambda: with_(lambda m: m.register_parameter("p", nn.Parameter(torch.zeros(1)))), "it has p, exp"),
    "buffer": (lambda: with_(lambda m: m.register_buffer("b", torch.zeros(1))), "it has b, expected nothing besides"),
    "submodule": (lambda: with_(lambda m: m.add_module("lora", nn.Linear(8, 2))), "it has lora, expected nothing"),
    "fp64": (
        lambda: nn.Linear(8, 4).double(),
        "its weight is torch.float64, expected torch.float32, torch.bfloat16 or torch.float16",
    ),
    "long": (lambda: nn.Linear(65_794, 1), "weight has K=65794 input features, expected 1 to 65793"),
    "nan": (lambda: with_(lambda m: fill(m.weight[2, 3], torch.nan)), r"weight\[2, 3\] is nan, expected a finite"),
    "infinity": (lambda: with_(lambda m: fill(m.bias[1], torch.inf)), r"bias\[1\] is inf, expected a finite"),
    "meta": (lambda: nn.Linear(8, 4, device="meta"), "its weight is on meta, expected cpu"),
    "no inputs": (lambda: nn.Linear(0, 4), "weight has K=0 input features"),
    "no outputs": (lambda: nn.Linear(4, 0), "weight has N=0 output features"),
    "subclass": (lambda: Casting(8, 4), r"a subclass of torch.nn.Linear: .*quantize\(model, types=\(Casting,\)\)"),
    "lazy": (lambda: nn.LazyLinear(4), "a subclass of torch.nn.Linear"),
    "compiled": (lambda: torch.compile(nn.Linear(8, 4)), "unknown: below a compiled module"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("calibrate", [None, lambda m: m["good"](torch.randn(4, 8))])
def test_layers_that_cannot_be_replaced_are_left_alone_and_named(calibrate):
    """And the others are replaced; what the warning says, the report says."""
    good = nn.Linear(8, 4)
    odd = {name: make() for name, (make, _) in ODD_LAYERS.items()}
    model = nn.ModuleDict({"good": good, **odd})
    state = {name: dict(vars(layer)) for name, layer in odd.items()}
    names = {
        name: next(n for n, m in model[name].named_modules(prefix=name) if isinstance(m, nn.Linear)) for name in odd
    }
    expected = [(names[name], reason) for name, (_, reason) in ODD_LAYERS.items()]
    expected.insert(1 + list(odd).index("submodule"), ("submodule.lora", "did not run")) if calibrate else None
    with left(*expected) if not calibrate else contextlib.nullcontext():
        acl_qlinear.quantize(model, calibrate, inplace=True)
    assert isinstance(model["good"], acl_qlinear.PackedLinear)
    statuses = {row.name: row.status for row in acl_qlinear.report(model).rows}
    assert statuses["good"] == "replaced"
    for name, (_, reason) in ODD_LAYERS.items():
        assert model[name] is odd[name] and dict(vars(odd[name])) == state[name], name
        assert re.search(reason, statuses[names[name]]), name


def test_a_copy_of_a_compiled_model_is_not_compiled():
    def compiled(layer):
        model = nn.Sequential(layer)
        model.compile(backend="aot_eager")
        return model

    quantized = tq.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear})[0]
    for make, layer in ((acl_qlinear.quantize, nn.Linear(8, 4)), (acl_qlinear.convert, quantized)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert type(make(compiled(layer))[0]) is acl_qlinear.DynamicLinear
    model = compiled(nn.Linear(8, 4))
    with left(("0", "unknown: below a compiled module")):
        assert acl_qlinear.quantize(model, inplace=True) is model and type(model[0]) is nn.Linear
    assert "unknown: below a compiled module" in str(acl_qlinear.report(model))


def test_a_predicate_sees_the_layers_of_the_given_model():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    ours = acl_qlinear.quantize(model, skip=lambda name, layer: layer is model[1])
    assert [type(layer) for layer in ours] == [acl_qlinear.DynamicLinear, nn.Linear]


def test_layers_in_lists_are_left_alone():
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.both, self.keyed, self.in_block = (nn.Linear(8, 8) for _ in range(4))
            self.experts = [nn.Linear(8, 8), [self.both]]
            self.by_name = {"a": self.keyed}
            self.blocks = (nn.Sequential(nn.Linear(8, 8), nn.ModuleList([self.in_block])),)
            self.myself: list = [self]
            self.myself.append(self.myself)

        def forward(self, x):
            for layer in (self.fc, self.both, self.keyed, self.experts[0], self.blocks[0][0]):
                x = layer(x)
            return x

    model = Holder()
    places = {"both": "experts[1][0]", "keyed": "by_name['a']", "in_block": "blocks[0].1.0", "experts[0]": "experts[0]",
              "blocks[0].0": "blocks[0].0"}  # fmt: skip
    for calibrate in (None, lambda m: m(X[..., :8])):
        with left(*((name, re.escape(f"kept in {place}, which")) for name, place in places.items())):
            ours = acl_qlinear.quantize(model, calibrate)
        assert [row.name for row in acl_qlinear.report(ours).replaced] == ["fc"]
        assert {row.name for row in acl_qlinear.report(ours).others} == set(places)
        assert ours.both is ours.experts[1][0] and type(ours.both) is nn.Linear
        torch.testing.assert_close(ours(X[..., :8]), model(X[..., :8]), rtol=0, atol=0.05)


def test_types_of_linear_layers():
    layer = Casting(8, 4)
    layer.note, seen = {"of": "mine"}, []
    layer.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    model, x = nn.Sequential(layer), torch.randn(3, 8)
    for calibrate in (None, lambda m: m(x)):
        with left():
            ours = acl_qlinear.quantize(model, calibrate, types=(Casting,))
        seen.clear()
        torch.testing.assert_close(ours(x), model(x), rtol=0, atol=0.05)
        assert seen == [type(ours[0]), Casting] and isinstance(ours[0], acl_qlinear.PackedLinear)
        assert ours[0].note == layer.note and ours[0].training
    for bad in (nn.Conv1d, "Casting", nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=r"types has .*, expected subclasses of torch\.nn\.Linear"):
            acl_qlinear.quantize(model, types=(bad,))


def test_skip():
    def make():
        shared = nn.Linear(8, 8)
        return nn.ModuleDict({"head": nn.Linear(8, 8), "a": nn.Sequential(shared, nn.Linear(8, 8)), "b": shared})

    model = make()
    for skip, skipped in (
        ("head", {"head"}), (["a.*"], {"a.0", "a.1"}), (["head", "*.1"], {"head", "a.1"}), ("b", {"a.0"}), ((), set()),
        (lambda name, module: module is model["head"], {"head"}), (lambda name, module: name == "b", {"a.0"}),
        ("*", {"head", "a.0", "a.1"}),
    ):  # fmt: skip
        for calibrate in (None, lambda m: [layer(X[..., :8]) for layer in (m["head"], *m["a"])]):
            with left():
                ours = acl_qlinear.quantize(model, calibrate, skip=skip)
            assert {row.name for row in acl_qlinear.report(ours).others} == skipped
            assert ours["b"] is ours["a"][0]
    for skip in ("heads", ["head", "c.*"], "a"):
        with pytest.raises(ValueError, match=r"skip has '(heads|c\.\*|a)', expected the name of a linear layer"):
            acl_qlinear.quantize(model, skip=skip)


def test_unexpected_errors_change_nothing():
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))

    def fails(*args):
        raise ZeroDivisionError

    for options in ({"skip": lambda name, module: name == "1" and fails()}, {"calibrate": fails}):
        with pytest.raises(ZeroDivisionError):
            acl_qlinear.quantize(model, inplace=True, **options)
        assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]
        assert not any(layer._forward_pre_hooks for layer in model)


def test_calibration_that_changes_the_model():
    """What can no longer be replaced then is left, as what could not be before."""

    def make_infinite(model):
        model(torch.randn(3, 8))
        model[1].weight.data[1, 2] = torch.inf
        model[2].bias.data[0] = torch.nan
        model[3] = nn.Identity()
        del model[4]

    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(5)])
    with left(("1", r"weight\[1, 2\] is inf"), ("2", r"bias\[0\] is nan")):
        acl_qlinear.quantize(model, make_infinite, inplace=True)
    assert [type(layer) for layer in model] == [acl_qlinear.CalibratedLinear, nn.Linear, nn.Linear, nn.Identity]


def test_attributes_called_as_methods_of_ours():
    layer = nn.Linear(8, 8)
    layer.activated = layer.packed_state = layer.extra_repr = "a user's"
    layer.note = "kept"
    ours = acl_qlinear.quantize(nn.Sequential(layer, nn.ReLU()), fuse=True)
    assert ours[0].note == "kept" and (ours(torch.ones(1, 8)) >= 0).all() and "in_features=8" in repr(ours)


@pytest.mark.filterwarnings("ignore")
def test_models_that_cannot_be_copied():
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(weight_norm(nn.Conv1d(8, 8, 1))))
    model[1](torch.randn(1, 8, 8))
    for function in (acl_qlinear.quantize, acl_qlinear.convert):
        with pytest.raises(RuntimeError, match=r"1\.0 cannot be copied, expected inplace=True"):
            function(model)
    assert isinstance(acl_qlinear.quantize(model, inplace=True)[0], acl_qlinear.DynamicLinear)


@pytest.mark.filterwarnings("ignore")
def test_encoders():
    """Calibrated with padding; of which one layer, or none, is replaced."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    x, padding = X[..., :32], torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 5:] = True

    def run(m):
        with torch.no_grad():
            return m(x, src_key_padding_mask=padding)[~padding]

    expected = run(encoder)
    for calibrate in (None, run):
        for skip, replaced in (((), 4), ("*.linear1", 2), ("*.linear2", 2), ("layers.1.*", 2), ("*linear*", 0)):
            with left():
                ours = acl_qlinear.quantize(encoder, calibrate, skip=skip)
            assert len(acl_qlinear.report(ours).replaced) == replaced
            assert nn.functional.cosine_similarity(run(ours).flatten(), expected.flatten(), 0) > 0.999
            # What stays, stays as fast.
            assert ours.use_nested_tensor == (replaced == 0)
            fast = [layer.activation_relu_or_gelu for layer in ours.layers]
            assert fast == ([1, 1] if replaced == 0 else [0, 1] if skip == "layers.1.*" else [0, 0])
    assert torch.backends.mha.get_fastpath_enabled()
    unchanged = acl_qlinear.convert(encoder)
    assert unchanged.use_nested_tensor and torch.equal(run(unchanged), expected)


class Conv1D(nn.Module):
    """The attributes of transformers' class of this name."""

    def __init__(self, nf, nx) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


@pytest.mark.filterwarnings("ignore")
def test_report_of_what_is_no_layer_or_cannot_be_known():
    x = torch.randn(3, 8)
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval()
    ours = acl_qlinear.quantize(model)
    for known in (model, ours):
        scripted, traced = torch.jit.script(known), torch.jit.trace(known, (x,))
        for unknown in (scripted, traced, torch.jit.freeze(scripted), nn.Sequential(traced), torch.compile(known)):
            report = acl_qlinear.report(unknown)
            assert len(report.rows) == 1 and report.rows[0].status.startswith("unknown: "), report
    assert acl_qlinear.report(torch.jit.script(nn.ReLU())).rows == []
    attentions = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4), Conv1D(8, 4)])
    with left():
        report = acl_qlinear.report(acl_qlinear.quantize(attentions))
    assert {row.name for row in report.others} == {
        "0.in_proj_weight", "0.out_proj", "1.q_proj_weight", "1.k_proj_weight", "1.v_proj_weight", "1.out_proj", "2"
    }  # fmt: skip
    assert report.replaced == [] and "its weight transposed" in report.rows[-1].status
