# SPDX-License-Identifier: MIT
"""The operators and modules under torch.library.opcheck, torch.compile and torch.export."""

import io

import pytest
import torch
from helpers import INTEGER, TORCH, Case, quantized, torch_weight
from torch import nn

import acl_qlinear
from acl_qlinear._load import BUILD

OPS = torch.ops.acl_qlinear
ALL = {"test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"}
# "quantized nyi in meta tensors": PyTorch traces no quantized tensors, through any operator.
OF_QUANTIZED_TENSORS = ALL - {"test_aot_dispatch_dynamic"}
# What a packed weight contains is not known while tracing.
OF_REAL_TENSORS = {"test_schema", "test_autograd_registration"}


def calls():
    case = Case(5, 40, 24, "u8")
    weight, scale = torch.from_numpy(case.weight.values), torch.from_numpy(case.weight.scale)
    x_quantized = quantized(case.x, 0.1, 3)
    yield OPS.prepack_int8.default, (weight, scale, None, case.torch_bias), ALL
    yield OPS.prepack_int8.default, (weight, scale, None, None, torch.ones(40)), ALL
    yield OPS.unpack.default, (case.packed,), ALL
    yield OPS.pre_scale.default, (case.packed,), ALL
    yield OPS.kernel_name.default, (case.packed,), OF_REAL_TENSORS
    # Of all pairs of types, one for each.
    for x_type, y_type in zip(TORCH, reversed(TORCH), strict=True):
        x = Case(5, 40, 24, x_type).x
        yield OPS.linear_int8.default, (x, 0.1, 3, case.packed, 0.3, 5, TORCH[y_type], "gelu"), ALL
        out = torch.zeros(5, 24, dtype=TORCH[y_type])
        yield OPS.linear_int8_out.default, (x, 0.1, 3, case.packed, 0.3, 5, "none", 0.01, out), ALL
        if x_type not in INTEGER:
            for rows in (x, x[None, None], x[0], x[:0], x.t().contiguous().t()):
                yield OPS.linear_static.default, (rows, case.packed, 0.1, 3, "gelu"), ALL
                yield OPS.linear_dynamic.default, (rows, case.packed, True, torch.bfloat16, "relu"), ALL
                yield OPS.linear_dynamic_row.default, (rows, case.packed, True, False, torch.bfloat16, "relu"), ALL
                yield OPS.linear_static_alone.default, (rows, case.packed, 0.1, 3), ALL
                yield OPS.linear_dynamic_alone.default, (rows, case.packed, True), ALL
                yield OPS.linear_dynamic_row_alone.default, (rows, case.packed, True, False), ALL
    yield OPS.forbid_fallback.default, (False,), ALL
    yield OPS.fallback_calls.default, (), ALL
    yield OPS.prepack.default, (torch_weight(case.weight), case.torch_bias), OF_QUANTIZED_TENSORS
    for dtype in (None, torch.float32):
        yield OPS.linear.default, (x_quantized, case.packed, 0.3, 5, dtype), OF_QUANTIZED_TENSORS
    yield OPS.add.default, (x_quantized, x_quantized, 0.3, 5, True), OF_QUANTIZED_TENSORS
    for operator in (OPS.quantized_add.default, OPS.quantized_add_relu.default):
        for other in (x_quantized, x_quantized[:1]):
            yield operator, (x_quantized, other, 0.3, 5), OF_QUANTIZED_TENSORS


def test_opcheck():
    checked = set()
    for operator, arguments, utilities in calls():
        results = torch.library.opcheck(operator, arguments, test_utils=sorted(utilities))
        assert set(results.values()) == {"SUCCESS"}, (operator, results)
        checked.add(operator.name())
    # no_gradient does nothing but raise.
    ours = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("acl_qlinear::")}
    assert checked == ours - {"acl_qlinear::no_gradient"}


def test_opcheck_of_quantized_tensors_is_limited_by_pytorch():
    case = Case(5, 40, 24, "u8")
    arguments = (quantized(case.x, 0.1, 3), case.packed, 0.3, 5)
    results = torch.library.opcheck(OPS.linear.default, arguments, raise_exception=False)
    assert "quantized nyi in meta tensors" in str(results["test_aot_dispatch_dynamic"])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # Its parameters make the inputs of layers require gradients.
        self.norm = nn.LayerNorm(40)
        self.a, self.b = nn.Linear(40, 24), nn.Linear(24, 17, bias=False)

    def forward(self, x):
        return self.b(nn.functional.gelu(self.a(self.norm(x)))) * 2


def models():
    torch.manual_seed(0)
    model = Model().eval()
    x = torch.randn(2, 9, 40)
    return x, {
        "dynamic": acl_qlinear.quantize(model),
        "row": acl_qlinear.quantize(model, granularity="row"),
        "static": acl_qlinear.quantize(model, calibrate=lambda m: m(x)),
        "smoothed": acl_qlinear.quantize(model, calibrate=lambda m: m(x), smooth=0.5),
    }


@pytest.mark.parametrize("options", [{}, {"calibrate": lambda m: m(torch.ones(2, 16))}], ids=["dynamic", "static"])
def test_symbolic_trace(options):
    model = acl_qlinear.quantize(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), **options)
    traced, x = torch.fx.symbolic_trace(model), torch.randn(3, 16)
    assert torch.equal(traced(x), model(x)) and len(acl_qlinear.report(traced).replaced) == 2
    if options:
        # In a graph there is the operator alone, whose errors have PyTorch's type in the stable build.
        kind = RuntimeError if BUILD.stable_abi else TypeError
        with pytest.raises(kind, match=r"x is .*\[3, 16\].*, expected a float32, bfloat16 or float16 CPU tensor"):
            traced(x.char())
        with pytest.raises(TypeError, match="x is None, expected a float32, bfloat16 or float16 CPU tensor"):
            model(None)


@pytest.mark.parametrize("kind", ["dynamic", "row", "static", "smoothed"])
def test_compile(kind):
    """Whole graphs, with M that changes."""
    x, model = models()[0], models()[1][kind]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (x, x[:, :4].contiguous(), torch.randn(3, 7, 40)):
            assert torch.equal(compiled(rows), model(rows))
    for rows in (x[:1], x[:, :4]):
        assert torch.equal(compiled(rows), model(rows))


def test_compile_falls_back_to_eager_for_quantized_tensors():
    x = torch.randn(6, 40)
    wrapped = torch.ao.quantization.QuantWrapper(nn.Linear(40, 24)).eval()
    wrapped.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    torch.ao.quantization.prepare(wrapped, inplace=True)(x)
    model = acl_qlinear.convert(torch.ao.quantization.convert(wrapped))
    assert isinstance(model.module, acl_qlinear.Linear)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="aot_eager")(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "row", "static", "smoothed"])
def test_export(kind, strict):
    """With a batch size that is left open, saved and loaded."""
    x, model = models()[0], models()[1][kind]
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for rows in (x, x[:1], torch.randn(5, 9, 40)):
        assert torch.equal(loaded(rows), model(rows))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("acl_qlinear.") for name in targets) and "aten.linear.default" not in targets
