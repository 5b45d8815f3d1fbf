# SPDX-License-Identifier: MIT
"""Arguments of the operators: every documented form works, every wrong kind is an error.

Errors name the argument, its value and what was expected.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TORCH, Case, quantized
from torch.ao.quantization import MinMaxObserver

import acl_qlinear
from acl_qlinear import pt2e
from acl_qlinear.bench.cases import make_case

LINEAR = torch.nn.Linear(4, 4)


def good_w(K: int = 16, N: int = 8, scale: float = 0.1) -> torch.Tensor:
    return quantized(torch.zeros(N, K, dtype=torch.int8), scale, 0)


def per_channel_w(axis: int = 0) -> torch.Tensor:
    scales = torch.full(((8, 16)[axis],), 0.1)
    return torch.quantize_per_channel(torch.zeros(8, 16), scales, torch.zeros(len(scales)).long(), axis, torch.qint8)


def good_x() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(4, 16), 0.1, 3, torch.quint8)


def make_packed(K: int = 16, scale: float = 0.1) -> torch.Tensor:
    return acl_qlinear.prepack(good_w(K, scale=scale))


def dynamic(**options: object) -> torch.Tensor:
    return acl_qlinear.linear_dynamic(X, make_packed(), **options)


def int8_w() -> torch.Tensor:
    return torch.zeros(8, 16, dtype=torch.int8)


@pytest.mark.parametrize(
    ("weight", "bias", "error", "message"),
    [
        (lambda: torch.randn(8, 16), None, TypeError, r"weight is torch.float32 \[8, 16\] on cpu, expected a qint8"),
        (good_x, None, TypeError, r"weight is torch.quint8 \[4, 16\]"),
        (lambda: good_w()[None], None, ValueError, r"weight has shape \[1, 8, 16\], expected \[out_features"),
        (lambda: per_channel_w(1), None, ValueError, "weight is quantized along axis 1, expected 0"),
        (lambda: good_w(), lambda: torch.randn(7), ValueError, r"bias has shape \[7\], expected \[8\]"),
        (lambda: good_w(), lambda: torch.randn(8).double(), TypeError, r"bias is Double \[8\]"),
        (lambda: good_w(), lambda: torch.full((8,), float("nan")), ValueError, r"bias\[0\] is nan"),
        (lambda: good_w(K=70000, N=1), None, ValueError, "K=70000 input features, expected 1 to 65793"),
    ],
)
def test_bad_weight(weight, bias, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.prepack(weight(), bias and bias())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((int8_w().float(), torch.ones(1)), TypeError, r"weight is Float \[8, 16\] on cpu, expected an int8 CPU"),
        ((int8_w(), torch.ones(7)), ValueError, r"scale has shape \[7\], expected \[1\] or \[8\]"),
        ((int8_w(), torch.ones(8, device="meta")), TypeError, "scale is on meta, expected cpu, as weight"),
        ((int8_w(), torch.ones(8).long()), TypeError, r"scale is Long \[8\] on cpu, expected a floating-point"),
        ((int8_w(), torch.zeros(8)), ValueError, "scale 0 is 0.000000, expected a finite number above 0"),
        (
            (int8_w(), torch.ones(1), torch.ones(1)),
            TypeError,
            "zero_point is Float .* expected a CPU tensor of integers",
        ),
        ((int8_w(), torch.ones(8), torch.ones(7).int()), ValueError, r"zero_point has shape \[7\]"),
        ((int8_w(), torch.ones(1), torch.tensor([200])), ValueError, "zero point 0 is 200, expected -128 to 127"),
        (
            (int8_w(), torch.ones(1), None, None, torch.ones(8)),
            ValueError,
            r"pre_scale has shape \[8\], expected \[16\], one value per input feature",
        ),
        (
            (int8_w(), torch.ones(1), None, None, torch.ones(16).double()),
            TypeError,
            r"pre_scale is Double \[16\] on cpu, expected a float32 CPU tensor",
        ),
        (
            (int8_w(), torch.ones(1), None, None, torch.full((16,), torch.inf)),
            ValueError,
            r"pre_scale\[0\] is inf, expected a finite number",
        ),
    ],
)
def test_bad_int8_weight(arguments, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.prepack_int8(*arguments)


def forged(change) -> torch.Tensor:
    packed = make_packed().clone()
    change(packed.view(-1))
    return packed


@pytest.mark.parametrize(
    ("x", "packed", "scale", "zero_point", "error", "message"),
    [
        (lambda: torch.randn(4, 16), make_packed, 0.1, 0, TypeError, "x is Float .*expected a quint8 or qint8"),
        (lambda: per_channel_w(), make_packed, 0.1, 0, ValueError, "with a scale for each channel, expected"),
        (lambda: good_x()[0, 0], make_packed, 0.1, 0, ValueError, r"x has shape \[\], expected \[..., 16\]"),
        (lambda: good_x()[:, :15], make_packed, 0.1, 0, ValueError, r"x has shape \[4, 15\], expected \[..., 16\]"),
        (good_x, lambda: make_packed(20), 0.1, 0, ValueError, r"x has shape \[4, 16\], expected \[..., 20\]"),
        (good_x, lambda: torch.randn(4), 0.1, 0, TypeError, "packed is Float .*prepack returned"),
        (good_x, lambda: make_packed().view(-1)[:20], 0.1, 0, ValueError, "20 bytes, too few for a packed weight"),
        (good_x, lambda: make_packed()[:-1], 0.1, 0, ValueError, "its header says"),
        (good_x, lambda: make_packed().view(-1), 0.1, 0, ValueError, r"packed has shape .*, expected \[8, "),
        (good_x, lambda: torch.zeros(5000, dtype=torch.uint8), 0.1, 0, ValueError, "does not start with the mark"),
        (good_x, lambda: forged(lambda p: p[8].fill_(9)), 0.1, 0, ValueError, "format version 9, expected 3: pack"),
        (good_x, lambda: forged(lambda p: p[12].fill_(77)), 0.1, 0, ValueError, "SVE vectors of 77 bytes, this CPU"),
        (good_x, lambda: forged(lambda p: p[24].fill_(80)), 0.1, 0, ValueError, "its header has been changed: N=80"),
        (good_x, lambda: forged(lambda p: p[64].fill_(88)), 0.1, 0, ValueError, "kernel X.* not used here"),
        (good_x, make_packed, 0.1, 256, ValueError, "output_zero_point is 256, expected 0 to 255 for uint8"),
        (good_x, make_packed, 0.0, 0, ValueError, "output_scale is 0, expected a number from 1.17549e-38 to 8.50706e"),
        (
            good_x,
            lambda: make_packed(scale=1e-38),
            8.0,
            0,
            ValueError,
            "not a normal fp32 number: the input scale is 0.1",
        ),
    ],
)
def test_bad_call(x, packed, scale, zero_point, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.linear(x(), packed(), scale, zero_point)


def test_weight_packed_for_instructions_that_this_cpu_lacks():
    name = b"a64_interleaved_s8s32_mmla_8x12\0"
    packed = forged(lambda p: p[64 : 64 + len(name)].copy_(torch.frombuffer(bytearray(name), dtype=torch.uint8)))
    lacks = "takes instructions that this CPU lacks: pack the weight again"
    if " i8mm" not in Path("/proc/cpuinfo").read_text():
        with pytest.raises(ValueError, match=lacks):
            acl_qlinear.linear(good_x(), packed, 0.1, 0)
        return
    try:
        acl_qlinear.linear(good_x(), packed, 0.1, 0)
    except ValueError as error:
        # Where ACL takes a kernel with wider panels for this weight.
        assert "its header has been changed" in str(error)


def plain(**changes):
    arguments = {"x": torch.zeros(4, 16, dtype=torch.uint8), "x_scale": 0.1, "x_zero_point": 3, "packed": make_packed()}
    return acl_qlinear.linear_int8(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: plain(x=torch.zeros(4, 16).double()),
            TypeError,
            "x is Double, expected int8, uint8, float32, bfloat16 or float16",
        ),
        (lambda: plain(x=torch.zeros(4, 16, device="meta")), TypeError, "x is on meta, expected cpu, as packed"),
        (lambda: plain(out=torch.empty(4, 8, device="meta")), TypeError, "out is on meta, expected cpu, as packed"),
        (lambda: plain(x_zero_point=-1), ValueError, "x_zero_point is -1, expected 0 to 255 for uint8"),
        (lambda: plain(x_scale=float("nan")), ValueError, "x_scale is nan, expected a number from 1.17549e-38"),
        (lambda: plain(output_dtype=torch.int32), TypeError, "output_dtype is Int, expected int8"),
        (lambda: plain(activation="swish"), ValueError, 'activation is "swish", expected none, relu, leaky_relu'),
        (lambda: plain(negative_slope=float("inf")), ValueError, "negative_slope is inf, expected a finite"),
        (lambda: plain(out=torch.empty(4, 9)), ValueError, r"out is Float \[4, 9\] on cpu, expected shape \[4, 8\]"),
        (lambda: plain(out=torch.empty(4, 8).double()), TypeError, "output_dtype is Double, expected int8"),
        (lambda: acl_qlinear.linear(good_x(), make_packed(), 0.1, 0, torch.int8), TypeError, "output_dtype is Char"),
        (lambda: acl_qlinear.linear_dynamic(good_x(), make_packed()), TypeError, "x is QUInt8 .*expected a float32"),
        (lambda: acl_qlinear.linear_dynamic(torch.randn(4, 15), make_packed()), ValueError, r"x has shape \[4, 15\]"),
        (lambda: dynamic(granularity="token"), ValueError, "granularity is 'token', expected one of tensor, row"),
        (lambda: dynamic(granularity=None), ValueError, "granularity is None, expected one of tensor, row"),
        (
            lambda: dynamic(granularity="row", reduce_range=True),
            ValueError,
            "reduce_range is True, expected False with granularity 'row'",
        ),
        (lambda: dynamic(granularity="row", symmetric="no"), TypeError, "symmetric is 'no', expected True or False"),
        (lambda: dynamic(reduce_range=None), TypeError, "reduce_range is None, expected True or False"),
        (lambda: dynamic(granularity="row", symmetric=True, narrow_range=2), TypeError, "narrow_range is 2, expected"),
        (lambda: acl_qlinear.quantize(LINEAR, per_channel="no"), TypeError, "per_channel is 'no', expected True or"),
        (lambda: acl_qlinear.quantize(LINEAR, inplace=1), TypeError, "inplace is 1, expected True or False"),
        (lambda: acl_qlinear.convert(LINEAR, inplace="no"), TypeError, "inplace is 'no', expected True or False"),
        (lambda: dynamic(symmetric=True), ValueError, "symmetric is True, expected False with granularity 'tensor'"),
        (
            lambda: dynamic(granularity="row", narrow_range=True),
            ValueError,
            "narrow_range is True, expected False without symmetric=True",
        ),
        (
            lambda: torch.ops.acl_qlinear.linear_dynamic_row(X, make_packed(), False, True),
            (ValueError, RuntimeError),
            "narrow_range is True, expected False",
        ),
    ],
)
def test_bad_plain_call(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_kernel_name():
    name = acl_qlinear.ops.kernel_name(make_packed())
    assert name.startswith(("sve_", "a64_"))
    # It is what the packed weight says, and that is checked.
    with pytest.raises(ValueError, match=r"acl_qlinear::kernel_name: packed is not usable: .* kernel X"):
        acl_qlinear.ops.kernel_name(forged(lambda p: p[64].fill_(88)))
    with pytest.raises(TypeError, match=r"packed is Float .*prepack returned"):
        acl_qlinear.ops.kernel_name(torch.zeros(8, 8))


def test_nothing_is_written_after_an_error():
    out = torch.full((4, 8), 77, dtype=torch.uint8)
    for changes in ({"x_zero_point": 999}, {"output_scale": 1e-40}, {"activation": "?"}, {"packed": make_packed(20)}):
        with pytest.raises(ValueError):
            plain(out=out, **changes)
    assert (out == 77).all()


# Kinds of wrong tensors, in the place of every tensor argument.

W, X = torch.ones(8, 16, dtype=torch.int8), torch.ones(4, 16)


def wrong_tensors() -> dict[str, torch.Tensor]:
    """None of them is right for any argument."""
    return {
        "complex": X + 0j,
        "double": X.double(),
        "double, one too many": torch.ones(4, 17).double(),
        "bool": X > 0,
        "int32": X.int(),
        "4-bit": torch.quantize_per_tensor(X, 0.1, 0, torch.quint4x2),
        "qint32": torch.quantize_per_tensor(X, 0.1, 0, torch.qint32),
        "along axis 1": torch.quantize_per_channel(X, torch.ones(16), torch.zeros(16).long(), 1, torch.qint8),
        "sparse": X.to_sparse(),
        "sparse rows": X.to_sparse_csr(),
        "sparse int8": W.to_sparse(),
        "mkldnn": X.to_mkldnn(),
        "meta": X.to("meta"),
        "meta int8": W.to("meta"),
        "empty": torch.empty(0),
        "empty bytes": torch.empty(0, 3, dtype=torch.uint8),
        "five dimensions": torch.ones(1, 2, 3, 4, 5),
    }


def calls_with(t: torch.Tensor) -> dict[str, tuple[str, object]]:
    """Every public function with `t` as each of its tensors; the argument's name, and the call."""
    packed, q = make_packed(), good_x()
    return {
        "prepack": ("weight", lambda: acl_qlinear.prepack(t)),
        "prepack, bias": ("bias", lambda: acl_qlinear.prepack(good_w(), t)),
        "prepack_int8": ("weight", lambda: acl_qlinear.prepack_int8(t, torch.ones(1))),
        "prepack_int8, scale": ("scale", lambda: acl_qlinear.prepack_int8(W, t)),
        "prepack_int8, zero_point": ("zero_point", lambda: acl_qlinear.prepack_int8(W, torch.ones(1), t)),
        "prepack_int8, bias": ("bias", lambda: acl_qlinear.prepack_int8(W, torch.ones(1), None, t)),
        "prepack_int8, pre_scale": (
            "pre_scale", lambda: acl_qlinear.prepack_int8(W, torch.ones(1), None, None, t),
        ),
        "pre_scale": ("packed", lambda: acl_qlinear.pre_scale(t)),
        "unpack": ("packed", lambda: acl_qlinear.unpack(t)),
        "kernel_name": ("packed", lambda: acl_qlinear.ops.kernel_name(t)),
        "linear": ("x", lambda: acl_qlinear.linear(t, packed)),
        "linear, packed": ("packed", lambda: acl_qlinear.linear(q, t)),
        "linear_int8": ("x", lambda: acl_qlinear.linear_int8(t, 0.1, 0, packed)),
        "linear_int8, packed": ("packed", lambda: acl_qlinear.linear_int8(X, 0.1, 0, t)),
        "linear_int8, out": ("out", lambda: acl_qlinear.linear_int8(X, 0.1, 0, packed, out=t)),
        "linear_dynamic": ("x", lambda: acl_qlinear.linear_dynamic(t, packed)),
        "linear_dynamic, packed": ("packed", lambda: acl_qlinear.linear_dynamic(X, t)),
        "linear_dynamic by row": ("x", lambda: acl_qlinear.linear_dynamic(t, packed, granularity="row")),
        "linear_dynamic by row, packed": ("packed", lambda: acl_qlinear.linear_dynamic(X, t, granularity="row")),
    }  # fmt: skip


def test_wrong_tensors():
    for kind, t in wrong_tensors().items():
        for where, (argument, call) in calls_with(t).items():
            with pytest.raises(
                (TypeError, ValueError), match=rf"\b({argument}|output_dtype|packed|weight)\b.*(expected|not usable)"
            ):
                call()
                print(f"accepted: {kind} as {where}")


def test_wrong_python_types():
    """PyTorch's own error, which names argument and type; None is a tensor to it, and an error of ours."""
    for wrong in (3, "x", [1.0], np.ones((4, 16), np.float32)):
        for argument, call in calls_with(wrong).values():
            with pytest.raises(RuntimeError, match=rf"value of type '(Optional\[)?Tensor.*argument '{argument}'"):
                call()
    for argument, call in calls_with(None).values():
        if argument not in ("bias", "zero_point", "pre_scale", "out"):
            with pytest.raises(TypeError, match=f"{argument} is None, expected"):
                call()


def test_integers_for_a_weight_with_a_pre_scale():
    packed = acl_qlinear.prepack_int8(int8_w(), torch.ones(1), pre_scale=torch.ones(16))
    calls = [
        lambda: acl_qlinear.linear(good_x(), packed),
        lambda: acl_qlinear.linear_int8(torch.zeros(2, 16, dtype=torch.int8), 0.1, 0, packed),
        lambda: acl_qlinear.linear_int8(torch.zeros(0, 16, dtype=torch.uint8), 0.1, 0, packed),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="x has integers, expected floats: the weight was packed with a pre_scale"):
            call()


def test_nested_tensors_are_refused():
    for t in (torch.nested.nested_tensor([X, X]), torch.nested.nested_tensor([X, X], layout=torch.jagged)):
        for _, call in calls_with(t).values():
            with pytest.raises(NotImplementedError):
                call()


# Documented forms.


def test_forms_of_scales_and_zero_points():
    """[1], [N], a scalar, and either for the other; float32, float64 and smaller floats; every integer dtype."""
    case = Case(3, 16, 8, "s8", with_zero_points=True)
    weight, x = torch.from_numpy(case.weight.values), case.x
    one, many = torch.tensor([0.5]), torch.full((8,), 0.5)
    results = []
    for scale, dtype in itertools.product((one, many, one[0]), (torch.float32, torch.float64, torch.bfloat16)):
        for integer in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            for zero_point in (torch.tensor([7]), torch.full((8,), 7), torch.tensor(7)):
                packed = acl_qlinear.prepack_int8(weight, scale.to(dtype), zero_point.to(integer))
                results.append(acl_qlinear.linear_int8(x, 0.1, 3, packed))
                count = max(scale.numel(), zero_point.numel())
                assert [t.numel() for t in acl_qlinear.unpack(packed)[1:3]] == [count, count]
    assert all(torch.equal(y, results[0]) for y in results)
    zero_points = torch.arange(-4, 4)
    shifted = acl_qlinear.prepack_int8(weight, one, zero_points)
    expected = (x.double() - 3) @ (weight.double() - zero_points[:, None]).T * float(np.float32(0.1 * 0.5))
    torch.testing.assert_close(acl_qlinear.linear_int8(x, 0.1, 3, shifted).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [128, -129, 2**31, 2**32, 2**32 + 5, -(2**63), 2**63 - 1])
def test_zero_points_of_weights_that_int8_does_not_hold(value):
    with pytest.raises(ValueError, match=f"weight zero point 0 is {value}, expected -128 to 127"):
        acl_qlinear.prepack_int8(W, torch.ones(1), torch.tensor([value]))


@pytest.mark.parametrize(("dtype", "low"), [(torch.int8, -128), (torch.uint8, 0)])
def test_zero_points_of_activations_that_their_dtype_does_not_hold(dtype, low):
    packed, x = make_packed(), torch.ones(2, 16, dtype=dtype)
    for value in (low - 1, low + 256, 1000, 2**31 - 1, -(2**31)):
        for operator, *arguments in (
            (acl_qlinear.linear, quantized(x, 0.1, value), packed),
            (acl_qlinear.linear_int8, x, 0.1, value, packed),
            (acl_qlinear.linear, quantized(x, 0.1, 0), packed, 0.1, value),
            (acl_qlinear.linear_int8, x, 0.1, 0, packed, 0.1, value, dtype),
        ):
            with pytest.raises(ValueError, match=rf"(x|output)_zero_point is {value}, expected {low} to {low + 255}"):
                operator(*arguments)


@pytest.mark.parametrize("scale", [0.0, -0.1, 1e-40, 1e-300, 1e38, 1e39, 1e300, float("inf"), float("nan")])
def test_scales_that_fp32_does_not_hold(scale):
    bias = torch.ones(8)
    packed = acl_qlinear.prepack_int8(W, torch.full((8,), 0.1), bias=bias)
    x = {name: torch.ones(2, 16).to(dtype) for name, dtype in TORCH.items()}
    for name in TORCH:
        with pytest.raises(ValueError, match=r"x_scale is .*, expected a number from 1.17549e-38 to 8.50706e"):
            acl_qlinear.linear_int8(x[name], scale, 0, packed)
        for output, activation in itertools.product((torch.int8, torch.uint8), ("none", "gelu")):
            with pytest.raises(ValueError, match=r"output_scale is .*, expected a number from 1.17549e-38 to"):
                acl_qlinear.linear_int8(x[name], 0.1, 0, packed, scale, 0, output, activation)
        # Documented as not used.
        y = acl_qlinear.linear_int8(x[name], 0.1, 0, packed, scale, 999)
        assert torch.equal(y, acl_qlinear.linear_int8(x[name], 0.1, 0, packed))
    if scale > 0:
        with pytest.raises(ValueError, match=r"x_scale is .*, expected a number from 1.17549e-38 to"):
            acl_qlinear.linear(quantized(torch.ones(2, 16, dtype=torch.int8), scale, 0), packed)


def test_scales_at_the_ends_of_what_is_allowed():
    x = torch.tensor([[3, -2, 1]], dtype=torch.int8)
    packed = acl_qlinear.prepack_int8(torch.eye(3, dtype=torch.int8), torch.ones(1))
    for scale in (2.0**-126, 2.0**126):
        assert torch.equal(acl_qlinear.linear_int8(x, scale, 0, packed), x * scale)
        assert torch.equal(acl_qlinear.linear_int8(x, scale, 0, packed, scale, 0, torch.int8), x)
        assert torch.equal(acl_qlinear.linear_int8(x * scale, scale, 0, packed, scale, 0, torch.int8), x)


@pytest.mark.parametrize("x_type", list(TORCH))
def test_output_dtype_of_none(x_type):
    x = torch.ones(2, 16).to(TORCH[x_type])
    y = acl_qlinear.linear_int8(x, 0.1, 0, make_packed(), output_dtype=None)
    assert y.dtype == (x.dtype if x.is_floating_point() else torch.float32)


def test_nan_and_infinity_in_static_layers_do_what_they_do_in_pytorch():
    packed = acl_qlinear.prepack_int8(torch.eye(6, dtype=torch.int8), torch.ones(1))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 0.5]).to(dtype)
        theirs = torch.quantize_per_tensor(x.float(), 0.1, 7, torch.qint8).int_repr()
        assert torch.equal(acl_qlinear.linear_int8(x, 0.1, 7, packed, 0.1, 7, torch.int8), theirs)


# out=


def test_out_that_overlaps_x_in_any_way():
    """Storages that share memory, or not; before, after and across; the right values as if x had been copied."""
    case = Case(6, 24, 24, "s8")
    memory = np.zeros(6 * 24 + 100, np.int8)
    for at in range(0, 100, 7):
        x = torch.from_numpy(memory[40 : 40 + 6 * 24]).view(6, 24)
        out = torch.from_numpy(memory[at : at + 6 * 24]).view(6, 24)
        x.copy_(case.x)
        expected = case.run("s8", 5)
        case.run("s8", 5, x=x, out=out)
        assert torch.equal(out, expected), at
    # Of another width.
    wide = torch.from_numpy(memory[:4].repeat(6 * 24)).view(torch.float32).view(6, 24)
    x = torch.from_numpy(wide.numpy()).view(torch.int8).view(-1)[50 : 50 + 6 * 24].view(6, 24).copy_(case.x)
    assert torch.equal(case.run("f32", x=x, out=wide), case.run("f32"))


def test_out_is_a_tensor_of_its_own():
    case = Case(4, 16, 24, "s8")
    with pytest.raises(ValueError, match="out shares memory with packed"):
        case.run("u8", out=case.packed.view(-1)[: 4 * 24].view(4, 24))
    for shared in (torch.empty(1, 24).expand(4, 24), torch.empty(4, 1).expand(4, 24)):
        with pytest.raises(RuntimeError, match=r"out is expanded along dimension [01], so that its"):
            case.run("f32", out=shared)


def test_out_is_seen_by_autograd():
    case = Case(4, 16, 24, "f32")
    for out in (torch.empty(4, 24), torch.empty(24, 4).t(), torch.empty(4, 48)[:, ::2]):
        before = out._version
        case.run("f32", out=out)
        assert out._version == before + 1
    leaf = torch.zeros(4, 24, requires_grad=True)
    for options in (
        {"out": leaf},
        {"out": leaf * 2},
        {"x": case.x.clone().requires_grad_(), "out": torch.empty(4, 24)},
    ):
        with pytest.raises(RuntimeError, match="x or out requires grad, expected neither"):
            case.run("f32", **options)
    with torch.no_grad():
        assert torch.equal(case.run("f32", out=leaf), case.run("f32"))
    saved = torch.ones(4, 24)
    product = saved * torch.ones(4, 24, requires_grad=True)
    case.run("f32", out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


# Gradients


def test_gradients_are_an_error_that_names_the_layer():
    packed = make_packed()
    before = torch.nn.Linear(16, 16)
    calls = {
        "linear_dynamic": lambda x: acl_qlinear.linear_dynamic(x, packed),
        "linear_dynamic, by row": lambda x: acl_qlinear.linear_dynamic(x, packed, granularity="row"),
        "linear_int8": lambda x: acl_qlinear.linear_int8(x, 0.1, 0, packed),
    }
    for name, call in calls.items():
        operator = name.split(",")[0]
        message = (
            rf"acl_qlinear::{operator} \(in_features=16, out_features=8\) has no gradient, since it is for inference"
        )
        expected = call(X)
        with pytest.raises(NotImplementedError, match=message):
            call(before(X)).sum().backward()
        with pytest.raises(NotImplementedError, match=message):
            torch.autograd.grad(call(X.clone().requires_grad_()).sum(), before.parameters(), allow_unused=True)
            torch.autograd.grad(call(before(X)).sum(), before.parameters())
        with pytest.raises(NotImplementedError, match=message):
            torch.func.grad(lambda x, call=call: call(x).sum())(X)
        with pytest.raises(NotImplementedError, match="has no derivative"):
            torch.func.jvp(call, (X,), (X,))
        # Nothing changes for those who ask for no gradient.
        assert torch.equal(call(X.clone().requires_grad_()).detach(), expected)
        with torch.no_grad():
            assert not call(X.clone().requires_grad_()).requires_grad
        with torch.inference_mode():
            assert torch.equal(call(X), expected)
        assert not call(X).requires_grad


def test_gradients_of_compiled_models():
    """Their graphs are made when they are first called, which is no time for an error."""
    packed, before = make_packed(), torch.nn.Linear(16, 16)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: acl_qlinear.linear_dynamic(before(x), packed), backend="aot_eager")
    y = compiled(X)
    assert torch.equal(y.detach(), acl_qlinear.linear_dynamic(before(X), packed).detach())
    with pytest.raises(NotImplementedError, match=r"linear_dynamic \(in_features=16, out_features=8\) has no gradient"):
        y.sum().backward()


def test_views_of_other_values():
    """Negatives and conjugates, which PyTorch computes when they are read."""
    packed = acl_qlinear.prepack(good_w())
    x = torch.randn(4, 16, dtype=torch.complex64)
    out = torch.empty(4, 8)
    acl_qlinear.linear_int8(x.conj().imag, 0.1, 3, packed, out=out)
    assert torch.equal(out, acl_qlinear.linear_int8(-x.imag, 0.1, 3, packed))
    zeros = torch.zeros(4, 8, dtype=torch.complex64).conj()
    for view, kind in ((zeros.imag, "negative"), (zeros, "conjugate")):
        for _ in range(3):
            with pytest.raises(TypeError, match=f"out is a {kind} view, expected a tensor that holds its values"):
                acl_qlinear.linear_int8(x.imag, 0.1, 3, packed, out=view)
    assert torch.equal(out, acl_qlinear.linear_int8(-x.imag, 0.1, 3, packed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: acl_qlinear.Linear(w, None, 0.0, 0), r"scale is 0.0, expected a number from 2\^-126 to 2\^126"),
        (
            lambda w: acl_qlinear.CalibratedLinear(w, None, 1e-40, 0),
            r"x_scale is 1e-40, expected a number from 2\^-126",
        ),
        (lambda w: acl_qlinear.Linear(w, None, 0.1, 256), "zero_point is 256, expected -128 to 255"),
        (lambda w: acl_qlinear.CalibratedLinear(w, None, float("nan"), 0), "x_scale is nan, expected a number"),
        (lambda w: acl_qlinear.CalibratedLinear(w, None, 0.1, 300), "x_zero_point is 300, expected -128 to 127"),
        (
            lambda w: acl_qlinear.DynamicLinear(w, None, negative_slope=float("inf")),
            "negative_slope is inf, expected a finite number",
        ),
    ],
)
def test_numbers_of_layers(make, message):
    with pytest.raises(ValueError, match=message):
        make(good_w())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (acl_qlinear.quantize, "model is a str, expected a torch.nn.Module"),
        (acl_qlinear.convert, "model is a str, expected a torch.nn.Module"),
        (acl_qlinear.report, "model is a str, expected a torch.nn.Module"),
        (pt2e.lower, "model is a str, expected what convert_pt2e returns, a torch.fx.GraphModule"),
        (lambda _: acl_qlinear.quantize(LINEAR, calibrate=3), "calibrate is a int, expected a function"),
        (
            lambda _: acl_qlinear.quantize(LINEAR, print, observer=MinMaxObserver(dtype=torch.qint8)),
            "observer is a MinMaxObserver, expected a function that makes one: lambda: MinMaxObserver",
        ),
        (lambda _: acl_qlinear.quantize(LINEAR, types=[int]), "types has <class 'int'>, expected subclasses of"),
        (lambda _: pt2e.lower(LINEAR), "model is a Linear, expected what convert_pt2e returns"),
    ],
)
def test_models_of_another_kind(call, message):
    with pytest.raises(TypeError, match=message):
        call("bert")


def test_kinds_of_a_case():
    with pytest.raises(ValueError, match="kind is 'dynamic row', expected one of u8 tensor, "):
        make_case(1, 8, 8, "dynamic row")
