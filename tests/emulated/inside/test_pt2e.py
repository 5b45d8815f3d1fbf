# SPDX-License-Identifier: MIT
"""PT2E: what pt2e.lower makes of quantized graphs."""

import copy
import io
import os
import pickle

import pytest
import torch
from torch import fx, nn

import acl_qlinear
from acl_qlinear import pt2e

X = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))
Q, ATEN = torch.ops.quantized_decomposed, torch.ops.aten
linear, quantize, dequantize = ATEN.linear.default, Q.quantize_per_tensor.default, Q.dequantize_per_tensor.default
INT8 = (-128, 127, torch.int8)


def torchao():
    """convert_pt2e and its like, of torchao where it is installed; and a quantizer for linear layers."""
    if os.environ["TORCHAO"]:
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.quantization.pt2e.quantizer import arm_inductor_quantizer as quantizers

        return quantize_pt2e, quantizers.ArmInductorQuantizer, quantizers.get_default_arm_inductor_quantization_config
    from torch.ao.quantization import quantize_pt2e
    from torch.ao.quantization.quantizer import x86_inductor_quantizer as quantizers

    return quantize_pt2e, quantizers.X86InductorQuantizer, quantizers.get_default_x86_inductor_quantization_config


def converted(is_dynamic: bool, dtype: torch.dtype) -> fx.GraphModule:
    """Four layers, as convert_pt2e leaves them."""
    quantize_pt2e, quantizer, config = torchao()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 17, bias=False), nn.GELU(), nn.Linear(17, 17), nn.SiLU(),
        nn.Linear(17, 3), nn.Tanh(),
    ).eval()  # fmt: skip
    exported = torch.export.export(model.to(dtype), (X.to(dtype),), strict=True).module()
    prepared = quantize_pt2e.prepare_pt2e(exported, quantizer().set_global(config(is_dynamic=is_dynamic)))
    prepared(X.to(dtype))
    return quantize_pt2e.convert_pt2e(prepared)


KINDS = pytest.mark.parametrize(
    ("is_dynamic", "dtype"), [(d, t) for d in (False, True) for t in (torch.float32, torch.bfloat16)]
)


@KINDS
def test_pt2e(is_dynamic, dtype):
    model, x = converted(is_dynamic, dtype), X.to(dtype)
    expected = model(x)
    assert expected.dtype == dtype and len(acl_qlinear.report(model).others) == 4
    lowered = pt2e.lower(model)
    report = acl_qlinear.report(lowered)
    assert lowered is model and len(report.replaced) == 4 and not report.others, report
    y = lowered(x)
    assert y.dtype == dtype
    # 8-bit steps of the last layers' input and output, at most; a graph in bf16 rounds at every step, too.
    steps = 0.01 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(y, expected, rtol=0, atol=steps * expected.abs().max().item())
    targets = [str(node.target) for node in lowered.graph.nodes if node.op == "call_function"]
    assert not any("aten.linear" in name or "dequantize" in name for name in targets[:-1]), targets
    # The packed weights are all that is left of the model.
    assert [name for name, _ in lowered.named_parameters()] == []
    assert [name for name, _ in lowered.named_buffers()] == [f"_acl_packed_{i}" for i in range(4)]
    assert not any(torch.is_tensor(value) for module in lowered.modules() for value in vars(module).values())


@KINDS
def test_lowered_models_live_on(is_dynamic, dtype):
    """Copied, saved, compiled, exported, lowered again: equal bits."""
    original = converted(is_dynamic, dtype)
    model, x = pt2e.lower(copy.deepcopy(original)), X.to(dtype)
    y = model(x)
    assert torch.equal(copy.deepcopy(model)(x), y)
    code = model.code
    assert torch.equal(pt2e.lower(model)(x), y) and model.code == code
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="aot_eager", fullgraph=True)(x), y)
    for strict in (False, True):
        exported = torch.export.export(model, (x,), strict=strict)
        loaded = torch.export.load(saved(lambda file, e=exported: torch.export.save(e, file))).module()
        assert torch.equal(loaded(x), y)
        assert torch.equal(pt2e.lower(loaded)(x), y) and len(acl_qlinear.report(loaded).replaced) == 4
    fresh = pt2e.lower(copy.deepcopy(original))
    for buffer in fresh.buffers():
        buffer.zero_()
    state = torch.load(saved(lambda file: torch.save(model.state_dict(), file)), weights_only=True)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), y)
    try:
        pickle.dumps(original)
    except Exception:  # PyTorch 2.9 pickles none that torch.export made; test_graphs has others.
        return
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), y)


def saved(save) -> io.BytesIO:
    file = io.BytesIO()
    save(file)
    file.seek(0)
    return file


class Weights(nn.Module):
    """Quantized weights of a layer, 40 to 16."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randint(-127, 128, (16, 40), dtype=torch.int8, generator=generator))
        self.register_buffer("scales", torch.rand(16, generator=generator) / 1000 + 0.001)
        self.register_buffer("zero_points", torch.zeros(16, dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(16, generator=generator))
        self.bias_bf16 = nn.Parameter(self.bias.detach().bfloat16())


class Graphs(nn.Module):
    """Weights in nested modules, and a float layer with tensors that no graph reads."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.a, self.inner = Weights(1), nn.ModuleDict({"b": nn.ModuleList([Weights(2)])})
        self.head = self.again = nn.Linear(16, 3)
        self.register_buffer("_acl_packed_1", torch.ones(1))
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class Tracer(fx.Tracer):
    proxy_buffer_attributes = True


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of what a model calls, call by call, as it was written."""
    return fx.GraphModule(model, Tracer().trace(model))


def static(x, **options):
    return dequantize(quantize(x, 0.03, 3, *INT8), 0.03, 3, *INT8, **options)


def dynamic(x, **options):
    scale, zero_point = Q.choose_qparams.tensor(x, -128, 127, 1e-7, torch.int8)
    integers = Q.quantize_per_tensor.tensor(x, scale, zero_point, *INT8)
    return Q.dequantize_per_tensor.tensor(integers, scale, zero_point, *INT8, **options)


def per_tensor(w, **options):
    return dequantize(w.weight, 0.001, 0, *INT8, **options)


def per_channel(w, axis=0, **options):
    return Q.dequantize_per_channel.default(w.weight, w.scales, w.zero_points, axis, *INT8, **options)


def in_kwargs(m, x):
    same = {"quant_min": -128, "quant_max": 127, "dtype": torch.int8}
    x = quantize(input=x, scale=0.03, zero_point=3, **same)
    x = dequantize(input=x, scale=0.03, zero_point=3, **same)
    zero_points = {"zero_points": m.a.zero_points, "axis": 0}
    weight = Q.dequantize_per_channel.default(input=m.a.weight, scales=m.a.scales, **zero_points, **same)
    y = linear(input=x, weight=weight, bias=m.a.bias)
    return quantize(input=y, scale=0.05, zero_point=-4, **same)


BF16 = {"out_dtype": torch.bfloat16}
# Graphs, and how many layers and packed weights `lower` makes of each.
GRAPHS = {
    "static": (lambda m, x: linear(static(x), per_channel(m.a), m.a.bias), 1, 1),
    "dynamic": (lambda m, x: linear(dynamic(x), per_tensor(m.a)), 1, 1),
    "arguments in kwargs": (in_kwargs, 1, 1),
    "no bias, in kwargs": (lambda m, x: linear(static(x), per_channel(m.a), bias=None), 1, 1),
    "axis from the end": (lambda m, x: linear(static(x), per_channel(m.a, -2)), 1, 1),
    "slope": (lambda m, x: ATEN.leaky_relu.default(linear(static(x), per_channel(m.a)), 0.3), 1, 1),
    "slope in kwargs": (
        lambda m, x: ATEN.leaky_relu.default(linear(dynamic(x), per_channel(m.a)), negative_slope=0.3), 1, 1,
    ),
    "no slope": (lambda m, x: ATEN.leaky_relu.default(linear(dynamic(x), per_channel(m.a))), 1, 1),
    "gelu_tanh": (lambda m, x: ATEN.gelu.default(linear(static(x), per_channel(m.a)), approximate="tanh"), 1, 1),
    "in place": (lambda m, x: ATEN.tanh_.default(linear(static(x), per_channel(m.a))), 1, 1),
    "activation with two users": (lambda m, x: twice(ATEN.relu.default(linear(static(x), per_channel(m.a)))), 1, 1),
    "layer with two users": (lambda m, x: twice(linear(static(x), per_channel(m.a))), 1, 1),
    "bf16 static": (lambda m, x: linear(static(x, **BF16), per_channel(m.a, **BF16), m.a.bias_bf16), 1, 1),
    "bf16 dynamic": (
        lambda m, x: linear(dynamic(x.bfloat16(), **BF16), per_tensor(m.a, **BF16), m.a.bias_bf16), 1, 1,
    ),
    "fp32 to bf16": (lambda m, x: ATEN.relu.default(linear(dynamic(x, **BF16), per_channel(m.a, **BF16))), 1, 1),
    "bf16 to fp32": (lambda m, x: linear(dynamic(x.bfloat16()), per_channel(m.a)), 1, 1),
    "fp32 by name": (lambda m, x: linear(static(x, out_dtype=torch.float32), per_channel(m.a)), 1, 1),
    "bf16 to int8": (
        lambda m, x: quantize(
            linear(static(x, **BF16), per_channel(m.a, **BF16), m.a.bias_bf16), 0.05, -4, *INT8
        ), 1, 1,
    ),
    "nested names": (lambda m, x: linear(static(x), per_channel(m.inner["b"][0]), m.inner["b"][0].bias), 1, 1),
    "a layer twice": (
        lambda m, x: linear(static(x), per_channel(m.a), m.a.bias)
        + linear(static(x * 2), per_channel(m.a), m.a.bias), 2, 1,
    ),
    "a weight with two biases": (
        lambda m, x: linear(static(x), per_channel(m.a), m.a.bias)
        + linear(static(x), per_channel(m.a), m.inner["b"][0].bias), 2, 2,
    ),
    "a weight that others read": (
        lambda m, x: linear(static(x), per_channel(m.a)) + m.a.weight.float().mean() + m.a.scales, 1, 1,
    ),
    "a name that is taken": (
        lambda m, x: linear(static(x), per_channel(m.a)) * m._acl_packed_1
        + linear(static(x), per_channel(m.inner["b"][0])), 2, 2,
    ),
    "a float layer beside it": (lambda m, x: m.again(linear(static(x), per_channel(m.a))), 1, 1),
    "one of two is refused": (
        lambda m, x: linear(static(x), per_channel(m.a))
        + linear(static(x), dequantize(m.a.weight, 0.0, 0, *INT8)), 1, 1,
    ),
}  # fmt: skip


def twice(y):
    return y + y.mean()


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name):
    """Results, dtypes and tensors of every form that a layer may have; copied and pickled, too."""
    function, layers, weights = GRAPHS[name]
    graph = trace(Graphs(function))
    expected = graph(X)
    tensors = set(dict(graph.named_buffers()))
    lowered = pt2e.lower(graph)
    y, report = lowered(X), acl_qlinear.report(lowered)
    assert len(report.replaced) == layers, report
    assert len(set(dict(lowered.named_buffers())) - tensors) == weights
    assert y.dtype == expected.dtype
    if expected.dtype == torch.int8:
        assert (y.int() - expected.int()).abs().max() <= 1
    else:
        # In bf16, the graph rounds at every step, and chooses its scale in bf16.
        tolerance = 0.02 if "bf16" in name else 1e-3
        torch.testing.assert_close(y, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    for copied in (copy.deepcopy(lowered), pickle.loads(pickle.dumps(lowered))):
        assert torch.equal(copied(X), y)


def wide(m, x):
    m.register_buffer("wide", torch.ones(2, 70_000, dtype=torch.int8))
    return linear(static(x.reshape(1, 720).repeat(1, 98)[:, :70_000]), dequantize(m.wide, 0.1, 0, *INT8))


def infinite(m, x):
    m.register_buffer("infinite", torch.full((16,), torch.inf))
    return linear(static(x), per_channel(m.a), m.infinite)


def int16(x):
    whole = (-32768, 32767, torch.int16)
    return dequantize(quantize(x, 0.03, 3, *whole), 0.03, 3, *whole)


REFUSED = {
    "K = 70000": wide,
    "infinite bias": infinite,
    "computed bias": lambda m, x: linear(static(x), per_channel(m.a), m.a.bias * 2),
    "scale 0 of the weight": lambda m, x: linear(static(x), dequantize(m.a.weight, 0.0, 0, *INT8)),
    "infinite scale of the weight": lambda m, x: linear(
        static(x), dequantize(m.a.weight, torch.inf, 0, *INT8)
    ),
    "scale 0 of the input": lambda m, x: linear(
        dequantize(quantize(x, 0.03, 3, *INT8), 0.0, 3, *INT8), per_channel(m.a)
    ),
    "infinite scale of the output": lambda m, x: quantize(
        linear(static(x), per_channel(m.a)), torch.inf, 3, *INT8
    ),
    "axis 1": lambda m, x: linear(
        static(x), Q.dequantize_per_channel.default(m.a.weight, torch.ones(40), torch.zeros(40).long(), 1, *INT8)
    ),
    "int16": lambda m, x: linear(int16(x), per_channel(m.a)),
    "fp64": lambda m, x: linear(
        static(x, out_dtype=torch.float64), per_channel(m.a, out_dtype=torch.float64)
    ),
    "fp64, dynamic": lambda m, x: linear(
        dynamic(x, out_dtype=torch.float64), per_tensor(m.a, out_dtype=torch.float64)
    ),
    "float weight": lambda m, x: linear(static(x), m.a.weight.float()),
    "float input": lambda m, x: linear(x, per_channel(m.a)),
    "no quantization": lambda m, x: linear(x, m.a.weight.float(), m.a.bias),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_layers_stay_as_they_are(name):
    """Neither graph nor tensors change, and the report lists the layer."""
    graph = trace(Graphs(REFUSED[name]))
    expected, code, tensors = graph(X), graph.code, list(graph.state_dict())
    lowered = pt2e.lower(graph)
    assert lowered is graph and graph.code == code and list(graph.state_dict()) == tensors
    torch.testing.assert_close(lowered(X), expected, rtol=0, atol=0, equal_nan=True)
    report = acl_qlinear.report(lowered)
    assert [row.kind for row in report.others if row.kind == "aten::linear"] == ["aten::linear"] and not report.replaced


def test_branches_of_control_flow_stay():
    """Graphs within the graph have tensors and graphs of their own."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Weights(1), nn.Linear(16, 16)

        def forward(self, x):
            y = linear(static(x), per_channel(self.a))
            inner = lambda y: torch.cond(y.min() > 0, lambda y: y + 1, lambda y: self.b(y), (y,))  # noqa: E731
            return torch.cond(y.sum() > 0, inner, lambda y: y * 2, (y,))

    graph = torch.export.export(Branches(), (X,)).module()
    inputs = [X, -X, X + 3]
    expected = [graph(x) for x in inputs]
    lowered = pt2e.lower(graph)
    assert [row.kind for row in acl_qlinear.report(lowered).replaced] == ["acl_qlinear::linear_int8"]
    for x, y in zip(inputs, expected, strict=True):
        torch.testing.assert_close(lowered(x), y)
