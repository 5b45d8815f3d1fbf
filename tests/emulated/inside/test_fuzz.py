# SPDX-License-Identifier: MIT
"""Random models, quantized in random ways: every layer against exact integers or PyTorch's own, every copy bit by bit.

FUZZ_MODELS is how many models, FUZZ_SEED the first one's seed. Each prefix draws other models.
"""

import copy
import functools
import io
import os
import random
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
import torch.ao.quantization as tq
from helpers import Errors, under
from torch import nn

import acl_qlinear
from acl_qlinear import observers, reference
from acl_qlinear.reference import Quantized

MODELS = int(os.environ.get("FUZZ_MODELS", "250"))
FIRST = int(os.environ.get("FUZZ_SEED", zlib.crc32(os.environ["EXCHANGE_AS"].encode())))
SIZES = [1, 2, 3, 5, 8, 12, 16, 17, 24, 31, 32, 33, 48, 64, 65, 70]
ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.Identity]
# Results are rounded to this share of themselves.
PRECISION = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}

# None is the default. Whether a range holds all inputs that the observer has seen. PyTorch's histograms take a second
# for a layer where they are emulated.
OBSERVERS: list[tuple[Callable | None, bool]] = [
    (None, True),
    (observers.MinMax, True),
    (functools.partial(observers.Percentile, 99), False),
    (functools.partial(tq.MinMaxObserver, dtype=torch.qint8), True),
    (functools.partial(tq.MovingAverageMinMaxObserver, dtype=torch.qint8), False),
]


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Branches(nn.Module):
    """The sum of its branches; one more may never run."""

    def __init__(self, branches: nn.ModuleDict | nn.ModuleList, idle: nn.Module | None) -> None:
        super().__init__()
        self.branches, self.idle = branches, idle

    def forward(self, x):
        named = isinstance(self.branches, nn.ModuleDict)
        return sum(branch(x) for branch in (self.branches.values() if named else self.branches))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@dataclass
class Maker:
    """Draws a model, block by block."""

    rng: random.Random
    with_encoders: bool
    # Of inputs: not all of PyTorch's quantized layers take vectors.
    lowest_rank: int
    width: int = 0
    # Attention takes matrices, and batches of them.
    has_attention: bool = False

    def model(self) -> tuple[nn.Module, int]:
        """A model and the width of its inputs."""
        width = self.width = self.rng.choice(SIZES)
        return nn.Sequential(*(self.block(2) for _ in range(self.rng.randint(1, 3))), self.linear()), width

    def linear(self, width: int | None = None) -> nn.Module:
        before, self.width = self.width, width or self.rng.choice(SIZES)
        return nn.Linear(before, self.width, bias=self.rng.random() < 0.7)

    def square(self) -> nn.Module:
        """A block that keeps the width."""
        width = self.width
        return nn.Sequential(self.linear(), self.rng.choice(ACTIVATIONS)(), self.linear(width))

    def block(self, depth: int) -> nn.Module:
        """Some layers; `depth` is how deep they may be nested."""
        simple = [self.linear, self.norm, self.perceptron, self.shared, self.attention]
        nested = [self.residual, self.branches, self.sequence] if depth else []
        encoders = [self.encoder] if self.with_encoders else []
        return self.rng.choice([*simple, *nested, *encoders])()

    def norm(self) -> nn.Module:
        # Of few numbers, a norm makes much of what quantization changes.
        return nn.Sequential(self.linear(self.rng.choice(SIZES[4:])), nn.LayerNorm(self.width))

    def perceptron(self) -> nn.Module:
        return nn.Sequential(self.linear(), self.rng.choice(ACTIVATIONS)(), self.linear())

    def shared(self) -> nn.Module:
        """One layer in two places."""
        layer = self.linear(self.width)
        return nn.Sequential(layer, nn.Tanh(), layer)

    def residual(self) -> nn.Module:
        return Residual(self.square())

    def branches(self) -> nn.Module:
        width = self.width
        layers = []
        for _ in range(self.rng.randint(1, 3)):
            self.width = width
            layers.append(self.square())
        idle = nn.Linear(3, 4) if self.rng.random() < 0.3 else None
        named = nn.ModuleDict({f"branch {i}": layer for i, layer in enumerate(layers)})
        return Branches(named if self.rng.random() < 0.5 else nn.ModuleList(layers), idle)

    def sequence(self) -> nn.Module:
        return nn.Sequential(*(self.block(0) for _ in range(2)))

    def heads(self) -> int:
        self.has_attention = True
        return self.rng.choice([heads for heads in (1, 2, 4) if self.width % heads == 0])

    def attention(self) -> nn.Module:
        return SelfAttention(self.width, self.heads())

    def encoder(self) -> nn.Module:
        if self.width < 8:
            return self.norm()
        rng, heads = self.rng, self.heads()
        activation = rng.choice([nn.functional.relu, nn.functional.gelu, torch.tanh])
        norm_first = rng.random() < 0.5
        return nn.TransformerEncoderLayer(
            self.width, heads, rng.choice(SIZES), activation=activation, batch_first=True, norm_first=norm_first
        )


@dataclass
class Tally:
    """What was seen over all models, and shares of it that are promised."""

    errors: Errors = field(default_factory=Errors)
    of_torch: Errors = field(default_factory=Errors)
    rows_of_torch: Errors = field(default_factory=Errors)
    calls: int = 0
    cosines: list[float] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)


def draw_inputs(rng: random.Random, maker: Maker, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Some inputs of one rank, and an empty one."""
    rank = rng.choice([2, 3]) if maker.has_attention else rng.randint(maker.lowest_rank, 4)
    shapes = [[*(rng.randint(1, 5) for _ in range(rank - 1)), width] for _ in range(3)]
    scale = 10 ** rng.uniform(-2, 1.5)
    inputs = [(torch.randn(shape) * scale).to(dtype) for shape in shapes]
    if rank > 1 and not maker.has_attention:
        inputs.append(torch.empty(0, *shapes[0][1:], dtype=dtype))
    return inputs


def check_model(seed: int, tally: Tally) -> None:
    """Makes one model, quantizes it, and checks all that holds for it."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    way = rng.choice(["dynamic", "static", "torch dynamic", "torch static"])
    tally.kinds[way] = tally.kinds.get(way, 0) + 1
    maker = Maker(rng, with_encoders="torch" not in way, lowest_rank=2 if "torch" in way else 1)
    model, width = maker.model()
    dtype = rng.choice([torch.float32, torch.bfloat16, torch.float16]) if "torch" not in way else torch.float32
    model = model.to(dtype).eval()
    inputs = draw_inputs(rng, maker, width, dtype)
    check = check_convert if "torch" in way else check_quantize
    with torch.no_grad():
        ours = check(way, rng, model, inputs, tally)
        check_report(ours)
        check_copies(rng, ours, inputs)


def check_quantize(way, rng, model, inputs, tally):
    """Our quantized model."""
    options, covers_all = {"per_channel": rng.random() < 0.5}, True
    if way == "dynamic":
        options |= rng.choice([
            {}, {"reduce_range": True}, {"granularity": "row"}, {"granularity": "row", "symmetric": True},
        ])  # fmt: skip
    else:
        options["calibrate"] = lambda m: [m(x) for x in inputs if x.numel()]
        # Some ranges do not hold all that was seen, and such inputs saturate.
        observer, covers_all = rng.choice(OBSERVERS)
        if observer:
            options["observer"] = observer
        if rng.random() < 0.3:
            options["smooth"] = rng.choice([0.3, 0.5, 0.9])
    options["fuse"] = rng.random() < 0.5
    expected = [model(x) for x in inputs]
    linears = {m for m in model.modules() if type(m) is nn.Linear}
    taken = layers_with_inputs(model, inputs) if way == "static" else linears
    state, structure = copy.deepcopy(model.state_dict()), repr(model)
    inplace = rng.random() < 0.3
    ours = quantize(model, inplace=inplace, **options)
    assert (ours is model) == inplace
    if not inplace:
        assert repr(model) == structure and model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(map(torch.equal, [model(x) for x in inputs], expected))
    replaced = {m for m in ours.modules() if isinstance(m, acl_qlinear.PackedLinear)}
    assert len(replaced) == len(taken)
    for x, y, layer in calls(ours, acl_qlinear.PackedLinear, inputs):
        check_layer(layer, x, y, tally)
    for x, y in zip(inputs, expected, strict=True):
        z = ours(x)
        assert z.shape == y.shape and z.dtype == y.dtype
        # The angle between single numbers says nothing.
        if covers_all and y.numel() >= 64 and y.any():
            tally.cosines.append(nn.functional.cosine_similarity(z.flatten().float(), y.flatten().float(), 0).item())
            assert tally.cosines[-1] > 0.9, tally.cosines[-1]
    return ours


def layers_with_inputs(model, inputs):
    """The float layers that ever see something else than zeros."""
    # The fast path of encoders does not call their layers.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return {layer for x, _, layer in calls(model, nn.Linear, inputs) if x.any()}
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def quantize(model, **options):
    with warnings.catch_warnings():
        # Layers that calibration does not run, or with zeros only, are meant.
        warnings.simplefilter("ignore", UserWarning)
        return acl_qlinear.quantize(model, **options)


def check_convert(way, rng, model, inputs, tally):
    """Our model for one of PyTorch's."""
    engine = rng.choice([name for name in torch.backends.quantized.supported_engines if name != "none"])
    make = torch_dynamic if way == "torch dynamic" else torch_static
    choice = rng.random() < 0.5
    with under(engine):
        theirs = make(model, inputs, engine, choice)
        ours = acl_qlinear.convert(theirs, inplace=False)
        kinds = (nnq.Linear, nnqd.Linear)
        layers = {name: m for name, m in theirs.named_modules() if isinstance(m, kinds)}
        assert layers and all(isinstance(ours.get_submodule(name), acl_qlinear.PackedLinear) for name in layers)
        names = {module: name for name, module in layers.items()}
        # PyTorch's oneDNN engine gives empty results of another shape.
        for x, y, layer in calls(theirs, kinds, [x for x in inputs if x.numel()]):
            # PyTorch's per-channel layers for oneDNN are wrong from the second call on: a new one for each.
            y = copy.deepcopy(layer)(x) if isinstance(layer, nnqd.Linear) and engine == "onednn" else y
            check_same(ours.get_submodule(names[layer]), x, y, tally)
        for x, y, layer in calls(ours, acl_qlinear.PackedLinear, inputs):
            check_layer(layer, x, y, tally)
    return ours


def torch_dynamic(model, inputs, engine, per_channel):
    # QNNPACK has no per-channel weights in dynamic layers of every PyTorch.
    per_channel = per_channel and engine != "qnnpack"
    qconfig = tq.per_channel_dynamic_qconfig if per_channel else tq.default_dynamic_qconfig
    return tq.quantize_dynamic(model, {nn.Linear: qconfig})


class Quantized1(nn.Module):
    """A float layer between a quantization of its input and one back, with a ReLU or without."""

    def __init__(self, layer: nn.Linear, relu: bool, engine: str) -> None:
        super().__init__()
        self.quant, self.dequant, self.layer = tq.QuantStub(), tq.DeQuantStub(), nn.Sequential(layer)
        if relu:
            self.layer = tq.fuse_modules(nn.Sequential(layer, nn.ReLU()).eval(), [["0", "1"]])
        weight = tq.default_weight_observer if engine == "qnnpack" else tq.default_per_channel_weight_observer
        self.qconfig = tq.QConfig(tq.MinMaxObserver.with_args(reduce_range=engine != "qnnpack"), weight)

    def forward(self, x):
        return self.dequant(self.layer(self.quant(x)))


def torch_static(model, inputs, engine, relu):
    made: dict[nn.Module, nn.Module] = {}
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is nn.Linear:
                made[child] = made.get(child) or Quantized1(child, relu, engine)
                parent._modules[name] = made[child]
    model.eval()
    with warnings.catch_warnings():
        # Layers that calibration does not run are meant.
        warnings.simplefilter("ignore", UserWarning)
        prepared = tq.prepare(model)
        for x in inputs:
            if x.numel():
                prepared(x)
        return tq.convert(prepared)


def calls(model, kinds, inputs):
    """Input, output and layer of every call of a layer of these kinds."""
    seen = []
    handles = [
        layer.register_forward_hook(lambda layer, args, y: seen.append((args[0], y, layer)))
        for layer in model.modules() if isinstance(layer, kinds)
    ]  # fmt: skip
    for x in inputs:
        model(x)
    for handle in handles:
        handle.remove()
    return seen


def check_layer(layer, x, y, tally):
    """A call of our layer against integers."""
    parts = acl_qlinear.unpack(layer.packed)
    weight, scale, zero_point, bias = (None if part is None else part.numpy() for part in parts)
    quantized_weight = Quantized(weight, scale, zero_point)
    assert weight.shape == (layer.out_features, layer.in_features) and y.shape == (*x.shape[:-1], layer.out_features)
    tally.calls += 1
    if not x.numel():
        return
    options = {"activation": layer.activation, "negative_slope": layer.negative_slope}
    if isinstance(layer, acl_qlinear.Linear):
        given = Quantized(x.int_repr().reshape(-1, layer.in_features).numpy(), x.q_scale(), x.q_zero_point())
        output = (given.values.dtype.type, layer.scale, layer.zero_point)
        integers = y.int_repr().reshape(-1, layer.out_features).numpy()
        assert (y.q_scale(), y.q_zero_point(), y.dtype) == (layer.scale, layer.zero_point, x.dtype)
        tally.errors.add(integers, reference.linear(given, quantized_weight, bias, output, **options))
        return
    rows = x.float().reshape(-1, layer.in_features)
    if (pre_scale := acl_qlinear.pre_scale(layer.packed)) is not None:
        rows = rows * pre_scale
    if isinstance(layer, acl_qlinear.DynamicLinear) and layer.granularity == "row":

        def as_x(value):
            return torch.from_numpy(value).to(x.dtype).float().numpy()

        quantization = reference.row_quantization(rows.numpy(), layer.symmetric, rounded=as_x)
        given = reference.quantize(rows.numpy(), *quantization)
    elif isinstance(layer, acl_qlinear.DynamicLinear):
        given = reference.quantize(rows.numpy(), *torch._choose_qparams_per_tensor(rows, layer.reduce_range), np.uint8)
    else:
        given = reference.quantize(rows.numpy(), layer.x_scale, layer.x_zero_point)
    expected = reference.linear(given, quantized_weight, bias, **options)
    difference = np.abs(y.double().reshape(expected.shape).numpy() - expected)
    sums = reference.linear(given, quantized_weight)
    smallest = 2.0**-24 if x.dtype == torch.float16 else 1e-30
    tolerance = PRECISION[x.dtype] * (np.abs(sums) + np.abs(0 if bias is None else bias)) + smallest
    assert y.dtype == x.dtype and (difference <= tolerance).all(), (layer, (difference / tolerance).max())


def check_same(layer, x, y, tally):
    """Our layer against PyTorch's, for the same input."""
    z = layer(x)
    assert z.shape == y.shape and z.dtype == y.dtype
    if y.is_quantized:
        assert (z.q_scale(), z.q_zero_point()) == (y.q_scale(), y.q_zero_point())
        tally.of_torch.add(z.int_repr().numpy(), y.int_repr().numpy())
        return
    weight, scale, *_ = acl_qlinear.unpack(layer.packed)
    scale_of_x = torch._choose_qparams_per_tensor(x, layer.reduce_range)[0]
    # oneDNN adds the zero point before it rounds: next to a tie of x, a row may differ by one step of x. It takes the
    # zero point's part of the sum away as fp32: of zeros, something is left.
    rows = (z - y).abs().reshape(-1, z.shape[-1]).amax(1)
    largest_sum = 255 * scale_of_x * (weight.int().abs().sum(1) * scale).max()
    off = rows > 1e-5 * y.abs().max() + 1e-7 * largest_sum
    tally.rows_of_torch.off += int(off.sum())
    tally.rows_of_torch.all += len(off)
    steps = (x.reshape(-1, x.shape[-1])[off] / scale_of_x).double()
    assert ((steps - steps.floor() - 0.5).abs().amin(1) < 1e-4).all(), "no value of x is next to a tie"
    assert (rows[off] <= 1.01 * scale_of_x * (weight.int().abs().amax(1) * scale).max()).all(), rows[off]


def check_report(model):
    """It counts every layer once."""
    report = acl_qlinear.report(model)
    packed = {m for m in model.modules() if isinstance(m, acl_qlinear.PackedLinear)}
    assert len(report.replaced) == len(packed), report
    floats = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert floats <= {row.name for row in report.others}, report


def check_copies(rng, model, inputs):
    """A copy of some kind computes the same bits."""
    expected = [model(x) for x in inputs]
    kind = rng.choice(["deepcopy", "pickle", "state_dict"])
    if kind == "deepcopy":
        other = copy.deepcopy(model)
    elif kind == "pickle":
        other = torch.load(saved(model), weights_only=False)
    else:
        state = torch.load(saved(model.state_dict()), weights_only=True)
        other = copy.deepcopy(model)
        # Of other weights, scales and biases.
        other.load_state_dict({key: with_other_values(value) for key, value in state.items()})
        assert any(not torch.equal(value, state[key]) for key, value in other.state_dict().items())
        other.load_state_dict(state)
    for x, y in zip(inputs, expected, strict=True):
        assert torch.equal(other(x), y), kind
    assert str(acl_qlinear.report(other)) == str(acl_qlinear.report(model)), kind


def with_other_values(value):
    return value.neg() if value.dtype == torch.int8 else value * 2 if value.is_floating_point() else value


def saved(value: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def test_fuzz():
    """Every model by itself; then what is promised of shares."""
    tally = Tally()
    failed = []
    for seed in range(FIRST, FIRST + MODELS):
        try:
            check_model(seed, tally)
        except Exception as error:
            if MODELS == 1:
                raise
            failed.append(f"FUZZ_SEED={seed} FUZZ_MODELS=1: {type(error).__name__} {error}".splitlines()[0])
    assert not failed, "\n".join(failed)
    print(
        f"\n{MODELS} models from {FIRST}, {tally.kinds}: {tally.calls} calls, {tally.errors.off} of {tally.errors.all} "
        f"integers off, {tally.of_torch.off} of {tally.of_torch.all} other than PyTorch's, "
        f"{tally.rows_of_torch.off} of {tally.rows_of_torch.all} rows of floats"
    )
    if MODELS >= 100:
        assert len(tally.kinds) == 4 and tally.calls > 5 * MODELS
        assert tally.errors.off <= 1e-4 * tally.errors.all
        assert tally.of_torch.off <= 0.02 * tally.of_torch.all
        assert tally.rows_of_torch.off <= 0.01 * tally.rows_of_torch.all
        assert np.mean(tally.cosines) > 0.98
