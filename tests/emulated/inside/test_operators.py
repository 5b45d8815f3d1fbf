# SPDX-License-Identifier: MIT
"""The operators, inside an installed prefix: results, packing, errors.

Expected results are those of acl_qlinear.reference: integer arithmetic in numpy.
"""

import ctypes
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INTEGER, QUANTIZED, TORCH, Case, Errors, given, quantized, refusals_with_short_vectors, torch_weight
from hypothesis import strategies as st

import acl_qlinear
from acl_qlinear import reference
from acl_qlinear._load import BUILD
from acl_qlinear.bench.cases import KINDS, make_case, our_error
from acl_qlinear.reference import Quantized

# Over all examples of the property test.
ERRORS = Errors()
EXAMPLES = hashlib.sha256()
ACTIVATIONS = list(reference.ACTIVATIONS)

sizes = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 96, 97, 130, 200]))
types = st.sampled_from(list(TORCH))


@given(
    150,
    M=sizes,
    K=st.one_of(sizes, st.sampled_from([768, 3080])),
    N=sizes,
    x_type=types,
    y_type=types,
    per_channel=st.booleans(),
    with_bias=st.booleans(),
    with_zero_points=st.sampled_from([False, False, True]),
    activation=st.sampled_from(["none", "relu", *ACTIVATIONS]),
    negative_slope=st.sampled_from([0.01, 0.2, -0.5, 1.5]),
    log_multiplier=st.floats(-14, 3),
    x_zero_point=st.integers(-128, 127),
    y_zero_point=st.integers(-128, 127),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "out", "in place"]),
    contents=st.integers(0, 2**32 - 1),
)
def test_results(
    M, K, N, x_type, y_type, per_channel, with_bias, with_zero_points, activation, negative_slope,
    log_multiplier, x_zero_point, y_zero_point, layout, contents,
):  # fmt: skip
    EXAMPLES.update(repr(list(locals().values())).encode())
    if layout == "in place":
        N, y_type = K, x_type
    # Multipliers from 2^-14 to 8: with wide sums the largest saturate nearly everywhere.
    case = Case(
        M, K, N, x_type, per_channel, with_bias, with_zero_points, log_multiplier,
        x_zero_point + 128 * (x_type == "u8"), contents,
    )  # fmt: skip
    x, options = case.x, {"activation": activation, "negative_slope": negative_slope}
    y_zero_point += 128 * (y_type == "u8")
    memory = {}
    if layout == "transposed":
        x = x.t().contiguous().t()
    elif layout == "strided":
        x = torch.stack([x, x], dim=2)[:, :, 0]
    elif layout == "out":
        # Not contiguous either.
        memory = {"out": torch.empty(N, M, dtype=TORCH[y_type]).t()}
    elif layout == "in place":
        x = x.clone()
        memory = {"out": x}
    y = case.run(y_type, y_zero_point, x, **options, **memory)
    if memory:
        assert y is memory["out"]
    case.check(y, y_type, ERRORS, y_zero_point=y_zero_point, **options)


def test_share_of_elements_that_are_one_off():
    for shape in [(1, 768, 768), (8, 768, 768), (128, 768, 768), (64, 768, 3072), (1, 768, 3072), (1, 64, 512)]:
        for x_type in INTEGER:
            case = Case(*shape, x_type)
            case.check(case.run(x_type, 3), x_type, ERRORS, y_zero_point=3)
    kernel = acl_qlinear.ops.kernel_name(Case(1, 768, 768).packed)
    print(f"\n{ERRORS.off} of {ERRORS.all} elements are 1 LSB off\nexamples {EXAMPLES.hexdigest()}\nkernel {kernel}")
    assert ERRORS.all > 500_000 and ERRORS.off <= 1e-4 * ERRORS.all


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("x_type", list(INTEGER))
def test_quantized_tensors_are_the_same_as_plain_ones(x_type, per_channel):
    case = Case(9, 40, 24, x_type, per_channel)
    x = quantized(case.x, case.x_quantized.scale, case.x_zero_point)
    packed = acl_qlinear.prepack(torch_weight(case.weight), case.torch_bias)
    assert torch.equal(packed, case.packed)
    for activation in ACTIVATIONS:
        y = acl_qlinear.linear(x, packed, case.y_scale, 3, activation=activation)
        assert (y.dtype, y.q_scale(), y.q_zero_point()) == (QUANTIZED[x_type], case.y_scale, 3)
        assert torch.equal(y.int_repr(), case.run(x_type, 3, activation=activation))
        for y_type in ("f32", "bf16", "f16"):
            y = acl_qlinear.linear(x, packed, output_dtype=TORCH[y_type], activation=activation)
            assert torch.equal(y, case.run(y_type, activation=activation))


def choose_quantization(x: np.ndarray, reduce_range: bool) -> tuple[float, int]:
    """What PyTorch's observers and operators do with a range (fbgemm's ChooseQuantizationParams), as int8."""
    low, high, steps = min(x.min(), 0.0), max(x.max(), 0.0), 127 if reduce_range else 255
    scale = (np.float64(high) - np.float64(low)) / steps
    return float(scale), round(-low / scale) - 128


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("with_zero_points", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("x_type", ["f32", "bf16", "f16"])
def test_dynamic(x_type, per_channel, with_zero_points, reduce_range):
    for M, K, N in ((1, 64, 512), (7, 33, 20), (130, 64, 24)):
        case = Case(M, K, N, x_type, per_channel, with_zero_points=with_zero_points)
        scale, zero_point = choose_quantization(case.x.float().numpy(), reduce_range)
        case.x_quantized = reference.quantize(case.x.float().numpy(), scale, zero_point)
        case.x_zero_point = zero_point
        for activation in ACTIVATIONS:
            for y_type in ("f32", "bf16", "f16"):
                y = acl_qlinear.linear_dynamic(case.x, case.packed, reduce_range, TORCH[y_type], activation)
                case.check(y, y_type, ERRORS, activation=activation)
        assert acl_qlinear.linear_dynamic(case.x, case.packed).dtype == case.x.dtype


# How rows are quantized: the options of linear_dynamic, and what torchao's functions are given for them.
ROWS = {
    "asymmetric": ({}, ("ASYMMETRIC", -128, 127, 2**-23)),
    "symmetric": ({"symmetric": True}, ("SYMMETRIC", -128, 127, 2**-23)),
    "narrow": ({"symmetric": True, "narrow_range": True}, ("SYMMETRIC", -127, 127, 1e-5)),
}


def by_row(x: torch.Tensor, packed: torch.Tensor, **options: Any) -> torch.Tensor:
    return acl_qlinear.linear_dynamic(x, packed, granularity="row", **options)


@pytest.mark.parametrize("with_zero_points", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ROWS)
def test_dynamic_by_row(kind, per_channel, with_zero_points):
    options = ROWS[kind][0]
    for M, K, N in ((1, 64, 512), (7, 33, 20), (130, 1040, 24)):
        case = Case(M, K, N, "f32", per_channel, with_zero_points=with_zero_points)
        # Rows of many sizes, and one of zeros.
        case.x *= torch.logspace(0, -3, M).unsqueeze(1)
        case.x[M // 2] *= M == 1
        x = case.x.numpy()
        case.x_quantized = reference.quantize(x, *reference.row_quantization(x, **options))
        for activation in ACTIVATIONS:
            for y_type in ("f32", "bf16", "f16"):
                y = by_row(case.x, case.packed, output_dtype=TORCH[y_type], activation=activation, **options)
                case.check(y, y_type, ERRORS, activation=activation)


@pytest.mark.parametrize("with_zero_points", [False, True])
@pytest.mark.parametrize("x_type", ["f32", "bf16", "f16"])
def test_pre_scale_multiplies_x_first(x_type, with_zero_points):
    """Bit for bit what x, multiplied in float32, gives."""
    for M, K, N in ((1, 64, 512), (7, 33, 20), (130, 1040, 24)):
        case = Case(M, K, N, x_type, True, with_zero_points=with_zero_points)
        pre_scale = torch.logspace(-2, 1, K)
        packed = acl_qlinear.prepack_int8(*acl_qlinear.unpack(case.packed), pre_scale)
        assert torch.equal(acl_qlinear.pre_scale(packed), pre_scale) and acl_qlinear.pre_scale(case.packed) is None
        calls = [
            lambda x, packed: acl_qlinear.linear_int8(x, 0.02, -3, packed),
            lambda x, packed: acl_qlinear.linear_int8(x, 0.02, -3, packed, 0.1, 5, torch.uint8, "gelu"),
            lambda x, packed: acl_qlinear.linear_dynamic(x, packed, output_dtype=torch.float32),
        ]
        for options, _ in ROWS.values():
            calls.append(lambda x, packed, o=options: by_row(x, packed, output_dtype=torch.float32, **o))
        for call in calls:
            assert torch.equal(call(case.x, packed), call(case.x.float() * pre_scale, case.packed))


def rows_of_every_size(rng: np.random.Generator) -> torch.Tensor:
    """1,000 ranges, some of them above or below 0."""
    ends = rng.standard_normal((1000, 2, 1)) * 10.0 ** rng.integers(-9, 30, (1000, 2, 1))
    ends *= rng.choice([0, 1, 1, 1], (1000, 2, 1))
    # Without zeros below zero.
    return torch.from_numpy(rng.uniform(ends.min(axis=1) + 0.0, ends.max(axis=1) + 0.0, (1000, 16)).astype(np.float32))


@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_quantized_bit_for_bit(kind):
    """A layer that changes nothing gives x as it was quantized."""
    options = ROWS[kind][0]
    packed = acl_qlinear.prepack_int8(torch.eye(16, dtype=torch.int8), torch.ones(1))
    x = rows_of_every_size(np.random.default_rng(17))
    q = reference.quantize(x.numpy(), *reference.row_quantization(x.numpy(), **options))
    expected = (q.values - q.zero_point).astype(np.float32) * q.scale
    assert np.array_equal(by_row(x, packed, **options).numpy(), expected)


@pytest.mark.parametrize("kind", ROWS)
def test_product_of_rows_is_torchaos(kind):
    """Without a bias it is int_scaled_matmul's, times the weight's scales, bit for bit; with one, rounded once less."""
    case = Case(20, 96, 40, "f32", with_bias=False)
    options = ROWS[kind][0]
    q = reference.quantize(case.x.numpy(), *reference.row_quantization(case.x.numpy(), **options))
    sums = torch.from_numpy(reference.sums(Quantized(q.values, 1, q.zero_point), case.weight))
    expected = sums.float() * torch.from_numpy(q.scale) * torch.from_numpy(case.weight.scale).float()
    assert torch.equal(by_row(case.x, case.packed, **options), expected)


@pytest.mark.parametrize("kind", ROWS)
def test_nan_and_infinity_stay_in_their_row(kind):
    case = Case(9, 40, 24, "f32")
    options = ROWS[kind][0]
    expected = by_row(case.x, case.packed, **options)
    for value in (torch.nan, torch.inf, -torch.inf):
        x = case.x.clone()
        x[2, 3] = value
        y = by_row(x, case.packed, **options)
        assert not y[2].isfinite().any()
        y[2] = expected[2]
        assert torch.equal(y, expected)


def torch_dynamic(weight: torch.Tensor, bias: torch.Tensor | None):
    packed = torch.ops.quantized.linear_prepack(weight, bias)
    return lambda x, reduce_range: torch.ops.quantized.linear_dynamic(x, packed, reduce_range)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_is_the_same_as_pytorchs(per_channel, reduce_range):
    case = Case(9, 40, 24, "f32", per_channel)
    theirs = torch_dynamic(torch_weight(case.weight), case.torch_bias)
    inputs = [case.x, case.x * 0, torch.full_like(case.x, 3.3), torch.full_like(case.x, -2.0), case.x * 1e-30]
    for x in inputs:
        torch.testing.assert_close(
            acl_qlinear.linear_dynamic(x, case.packed, reduce_range), theirs(x, reduce_range), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("reduce_range", [False, True])
def test_dynamic_scales_and_zero_points_are_pytorchs(reduce_range):
    """Of ranges of every size. A layer that changes nothing gives x as it was quantized, bit for bit."""
    packed = acl_qlinear.prepack_int8(torch.eye(16, dtype=torch.int8), torch.ones(1))
    rng = np.random.default_rng(16)
    for _ in range(1000):
        ends = rng.standard_normal(2) * 10.0 ** rng.integers(-9, 30, 2) * rng.choice([0, 1, 1, 1], 2)
        # Without zeros below zero.
        x = torch.from_numpy(rng.uniform(*(np.sort(ends) + 0.0), (1, 16)).astype(np.float32))
        scale, zero_point = torch._choose_qparams_per_tensor(x, reduce_range)
        expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 127 if reduce_range else 255)
        assert torch.equal(acl_qlinear.linear_dynamic(x, packed, reduce_range), expected), (x, scale, zero_point)


@pytest.mark.parametrize("per_channel", [False, True])
def test_nan_and_infinity_do_what_they_do_in_pytorch(per_channel):
    case = Case(5, 40, 24, "f32", per_channel)
    theirs = torch_dynamic(torch_weight(case.weight), case.torch_bias)
    messages = []
    for operator in (theirs, lambda x, reduce_range: acl_qlinear.linear_dynamic(x, case.packed, reduce_range)):
        x = case.x.clone()
        x[2, 3] = torch.nan
        with pytest.raises(RuntimeError) as error:
            operator(x, True)
        messages.append(str(error.value).splitlines()[0])
        for infinite in (torch.inf, -torch.inf):
            x[2, 3] = infinite
            # PyTorch's kernels differ in whether a value is infinite or NaN.
            assert not operator(x, True).isfinite().any()
    assert messages[0] == messages[1]


@pytest.mark.parametrize("multiplier", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("x_type", list(INTEGER))
def test_ties_go_to_even(multiplier, x_type):
    # K = 1 and weight 1: the sums are the inputs, and every half is met.
    zero = 128 if x_type == "u8" else 0
    x = np.arange(256).astype(np.uint8).view(INTEGER[x_type]).reshape(256, 1)
    weight = Quantized(np.array([[1], [-1]], np.int8), np.array([1.0]), np.array([0]))
    y = acl_qlinear.linear(quantized(x, multiplier, zero), acl_qlinear.prepack(torch_weight(weight)), 1.0, zero)
    expected = reference.linear(Quantized(x, multiplier, zero), weight, output=(INTEGER[x_type], 1.0, zero))
    assert np.array_equal(y.int_repr().numpy(), expected)


@pytest.mark.parametrize("log_multiplier", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("x_type", list(INTEGER))
def test_multiplier_of_one_and_above(x_type, log_multiplier):
    """Sums small enough not to saturate: the layer of an identity matrix."""
    zero = 128 if x_type == "u8" else 0
    x = np.arange(-40, 40).reshape(5, 16) + zero
    weight = Quantized(np.eye(16, dtype=np.int8), np.array([1.0]), np.array([0]))
    packed = acl_qlinear.prepack(torch_weight(weight))
    y = acl_qlinear.linear(quantized(x.astype(INTEGER[x_type]), 2**log_multiplier, zero), packed, 1.0, zero)
    expected = np.clip(np.rint((x - zero) * np.float64(np.float32(2**log_multiplier))) + zero, *(
        (0, 255) if x_type == "u8" else (-128, 127)))  # fmt: skip
    assert np.array_equal(y.int_repr().numpy(), expected)


def test_saturation_at_both_ends():
    weight = torch.from_numpy(np.stack([np.full(512, 127, np.int8), np.full(512, -128, np.int8)]))
    for integer, zero in ((np.uint8, 100), (np.int8, -3)):
        limits = np.iinfo(integer)
        x = np.full((3, 512), limits.max, integer)
        y = acl_qlinear.linear(quantized(x, 1.0, zero), acl_qlinear.prepack(quantized(weight, 1.0, 0)), 1.0, zero)
        assert np.array_equal(y.int_repr().numpy(), np.tile([limits.max, limits.min], (3, 1)).astype(integer))


def test_largest_sums_do_not_overflow():
    """K as large as it may be, and everything at its end."""
    for K, zero_points in ((65793, 0), (33025, 127)):
        weight = torch.full((2, K), -128, dtype=torch.int8)
        packed = acl_qlinear.prepack_int8(weight, torch.ones(1), torch.tensor([zero_points]))
        x = torch.full((3, K), 255, dtype=torch.uint8)
        y = acl_qlinear.linear_int8(x, 1.0, 0, packed)
        assert torch.equal(y, torch.full((3, 2), 255.0 * (-128 - zero_points) * K))


def test_all_equal_input():
    for x_type in TORCH:
        case = Case(6, 48, 20, x_type)
        case.x = torch.full_like(case.x, 9)
        values = np.full((6, 48), 9.0, np.float32)
        case.x_quantized = (
            Quantized(values.astype(INTEGER[x_type]), case.x_quantized.scale, case.x_zero_point)
            if x_type in INTEGER
            else reference.quantize(values, case.x_quantized.scale, case.x_zero_point)
        )
        for y_type in TORCH:
            case.check(case.run(y_type, 5), y_type, Errors(), **({"y_zero_point": 5} if y_type in INTEGER else {}))


def test_channel_scales_that_differ_by_a_million():
    case = Case(12, 64, 33, "u8", with_bias=False)
    case.weight = Quantized(case.weight.values, np.geomspace(1e-6, 1.0, 33), case.weight.zero_point)
    case.packed = acl_qlinear.prepack_int8(torch.from_numpy(case.weight.values), torch.from_numpy(case.weight.scale))
    for y_type in TORCH:
        case.check(case.run(y_type), y_type, Errors())


def test_each_channel_alone():
    """Column n of a layer is the layer that has row n of the weight only."""
    case = Case(7, 40, 37, "s8")
    for y_type in TORCH:
        whole = case.run(y_type, 3)
        for n in range(case.N):
            packed = acl_qlinear.prepack_int8(
                torch.from_numpy(case.weight.values[n : n + 1]), torch.from_numpy(case.weight.scale[n : n + 1]),
                bias=case.torch_bias[n : n + 1],
            )  # fmt: skip
            alone = acl_qlinear.linear_int8(
                case.x, case.x_quantized.scale, case.x_zero_point, packed, case.y_scale, 3, TORCH[y_type]
            )
            assert torch.equal(alone[:, 0], whole[:, n]), (y_type, n)


def test_relu_is_never_below_zero_point():
    case = Case(8, 64, 64, "u8")
    plain, fused = case.run("u8", 118), case.run("u8", 118, activation="relu")
    assert torch.equal(fused, plain.clamp(min=118)) and not torch.equal(fused, plain)


@pytest.mark.parametrize("leading", [(), (1,), (0,), (3,), (2, 0), (2, 3), (4, 1, 5), (2, 0, 3, 1), (2, 3, 2, 1)])
def test_any_rank_and_no_rows(leading):
    case = Case(24, 40, 16, "u8")
    rows = int(np.prod(leading))
    x = case.x[:rows].reshape(*leading, 40)
    flat = case.run("u8")[:rows]
    assert torch.equal(case.run("u8", x=x), flat.reshape(*leading, 16))
    y = acl_qlinear.linear(quantized(x, 0.1, 3), case.packed, case.y_scale)
    assert y.shape == (*leading, 16)
    assert acl_qlinear.linear_dynamic(x.float(), case.packed).shape == (*leading, 16)


def test_expanded_input():
    case = Case(1, 40, 16, "s8")
    assert torch.equal(case.run("s8", x=case.x.expand(5, 40)), case.run("s8").expand(5, 16))
    assert torch.equal(case.run("s8", x=case.x[0]), case.run("s8")[0])


def test_a_row_depends_on_nothing_but_itself():
    """Same bits for every M and thread count; the digest is compared between prefixes."""
    digest = hashlib.sha256()
    for x_type, y_type, activation in (
        ("u8", "u8", "none"), ("s8", "s8", "leaky_relu"), ("u8", "f32", "gelu"), ("f32", "f32", "none"),
        ("bf16", "bf16", "tanh"), ("f16", "f16", "relu"), ("f32", "s8", "silu"), ("s8", "f32", "gelu_tanh"),
    ):  # fmt: skip
        for K, N in ((64, 96), (768, 200), (13, 5)):
            case = Case(230, K, N, x_type)
            whole = case.run(y_type, activation=activation)
            for M in (1, 2, 5, 6, 7, 8, 9, 50, 96, 97, 193):
                assert torch.equal(case.run(y_type, x=case.x[:M], activation=activation), whole[:M]), (K, N, M)
            for threads in (2, 3, 4):
                torch.set_num_threads(threads)
                for M in (1, 8, 100, 230):
                    y = case.run(y_type, x=case.x[:M], activation=activation)
                    assert torch.equal(y, whole[:M]), (x_type, K, N, M, threads)
            torch.set_num_threads(1)
            digest.update(whole.view(torch.uint8).numpy().tobytes())
    case = Case(64, 192, 160, "f32")
    digest.update(acl_qlinear.linear_dynamic(case.x, case.packed).numpy().tobytes())
    for kind, (options, _) in ROWS.items():
        whole = by_row(case.x, case.packed, **options)
        for M in range(1, 64):
            torch.set_num_threads(1 + M % 4)
            assert torch.equal(by_row(case.x[:M], case.packed, **options), whole[:M]), (kind, M)
        torch.set_num_threads(1)
        digest.update(whole.numpy().tobytes())
    print(f"\ndigest {digest.hexdigest()}")


# Packing


def guarded(tensor: torch.Tensor, readable_only: bool = False) -> torch.Tensor:
    """A copy whose memory ends (within 64 bytes, where it must be aligned) at a page of no access."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    page, bytes_ = os.sysconf("SC_PAGESIZE"), tensor.numel() * tensor.element_size()
    pages = -(-(bytes_ + 64) // page)
    start = libc.mmap(None, ctypes.c_size_t((pages + 1) * page), 3, 0x22, -1, ctypes.c_long(0))
    # Only packed weights, which are uint8 with two dimensions, have to be aligned.
    alignment = 64 if readable_only else tensor.element_size()
    begin = start + (pages * page - bytes_) // alignment * alignment
    memory = (ctypes.c_char * bytes_).from_address(begin)
    copy = torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape)
    copy.copy_(tensor)
    if readable_only:
        assert libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(pages * page), 1) == 0
    assert libc.mprotect(ctypes.c_void_p(start + pages * page), ctypes.c_size_t(page), 0) == 0
    return copy


@pytest.mark.parametrize(("M", "K", "N"), [(1, 768, 3072), (1, 64, 512), (1, 3, 17), (2, 5, 33), (7, 13, 300)])
def test_nothing_beyond_the_ends_is_touched(M, K, N):
    """M·K < N, where PyTorch 2.9 writes beyond a buffer: every tensor ends at a page of no access."""
    for x_type, y_type in (("u8", "u8"), ("s8", "f32"), ("f32", "s8"), ("bf16", "bf16")):
        case = Case(M, K, N, x_type)
        expected = case.run(y_type, 3)
        case.packed = guarded(case.packed, readable_only=True)
        out = guarded(torch.zeros(M, N, dtype=TORCH[y_type]))
        for threads in (1, 4):
            torch.set_num_threads(threads)
            assert torch.equal(case.run(y_type, 3, x=guarded(case.x), out=out), expected)
        torch.set_num_threads(1)


def test_weights_are_packed_once_and_only_read():
    """The packed bytes are in pages that cannot be written, for every M, dtype and thread count."""
    cases = [Case(200, 128, 256, x_type) for x_type in TORCH]
    packed = guarded(cases[0].packed, readable_only=True)
    for case in cases:
        expected = case.run("f32")
        assert torch.equal(case.packed, packed)
        case.packed = packed
        for M in (1, 3, 8, 97, 200):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                assert torch.equal(case.run("f32", x=case.x[:M]), expected[:M])
        torch.set_num_threads(1)


@pytest.mark.parametrize("per_channel", [False, True])
def test_packed_weight_takes_little_more_than_a_byte_per_weight(per_channel):
    for K, N, at_most in ((768, 768, 1.1), (768, 3072, 1.1), (128, 128, 1.4)):
        assert Case(1, K, N, per_channel=per_channel).packed.numel() <= at_most * K * N


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_zero_points", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("K", "N"), [(1, 1), (13, 5), (200, 97), (768, 64)])
def test_unpack_gives_back_everything(K, N, per_channel, with_zero_points, with_bias):
    case = Case(1, K, N, "u8", per_channel, with_bias, with_zero_points)
    weight, scale, zero_point, bias = acl_qlinear.unpack(case.packed)
    assert np.array_equal(weight.numpy(), case.weight.values)
    assert np.array_equal(scale.numpy(), case.weight.scale)
    assert np.array_equal(zero_point.numpy(), case.weight.zero_point)
    assert (bias is None) if case.bias is None else np.array_equal(bias.numpy(), case.bias)


def test_unpack_tells_a_bias_of_zeros_from_none():
    weight, scale = torch.ones(3, 4, dtype=torch.int8), torch.ones(1)
    assert acl_qlinear.unpack(acl_qlinear.prepack_int8(weight, scale))[3] is None
    bias = acl_qlinear.unpack(acl_qlinear.prepack_int8(weight, scale, bias=torch.zeros(3)))[3]
    assert torch.equal(bias, torch.zeros(3))


def test_fallback_is_counted_and_can_be_forbidden():
    symmetric, shifted = Case(4, 16, 8), Case(4, 16, 8, with_zero_points=True)
    before = acl_qlinear.fallback_calls()
    symmetric.run("u8")
    assert acl_qlinear.fallback_calls() == before
    shifted.run("u8")
    acl_qlinear.linear_dynamic(torch.randn(2, 16), shifted.packed)
    assert acl_qlinear.fallback_calls() == before + 2
    acl_qlinear.forbid_fallback()
    try:
        for call in (lambda: shifted.run("u8"), lambda: Case(4, 16, 8, with_zero_points=True)):
            with pytest.raises(ValueError, match=r"weight has a zero point that is not 0.*forbid_fallback\(False\)"):
                call()
        symmetric.run("u8")
    finally:
        acl_qlinear.forbid_fallback(False)
    shifted.run("u8")


def test_another_sve_vector_length_is_refused():
    case = Case(3, 16, 24, "u8")
    expected, results = case.run("u8"), []
    messages, length = refusals_with_short_vectors(lambda: results.append(case.run("u8")))
    assert len(messages) == (length is not None) and len(results) == (length is None)
    assert length is None or f"for SVE vectors of {length} bytes, this CPU has 16" in messages[0]
    assert all(torch.equal(result, expected) for result in [*results, case.run("u8")])


# The libraries in the process


def test_onednn_is_the_pinned_one():
    assert f"v{os.environ['ONEDNN_PIN']} " in torch.__config__.show()


def test_pytorchs_that_this_build_runs_with():
    fits, minor = BUILD.fits, int(BUILD.torch_minor.split(".")[1])
    later = [f"2.{minor + 1}.0", f"2.{minor + 90}.1+cu130", "3.0.0"]
    assert fits(torch.__version__) and fits(f"2.{minor}.9a0+git1")
    assert [fits(version) for version in later] == [BUILD.stable_abi] * 3
    assert not fits(f"2.{minor - 1}.1") and not fits("1.13.1")


def loaded(name: str) -> set[str]:
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if name in line.rsplit("/", 1)[-1]}


# As long as torch.compile has made nothing, which brings the compiler's.
OPENMP = loaded("libgomp")


def test_one_openmp_and_an_arm_compute_library_of_our_own():
    assert len(OPENMP) == 1
    libraries = loaded("libarm_compute") - loaded("libarm_compute_graph")
    ours = [path for path in libraries if not re.search(r"/torch(\.libs|/lib)/", path)]
    # PyTorch's own: in PyPI's, and in none of Debian's.
    site = Path(torch.__file__).parents[1]
    theirs = [*site.glob("torch/lib/libarm_compute[.-]*"), *site.glob("torch.libs/libarm_compute[.-]*")]
    assert len(ours) == 1 and len(libraries) == 1 + len(theirs), libraries
    symbol = "_ZN11arm_compute9Scheduler3getEv"
    addresses = {ctypes.cast(getattr(ctypes.CDLL(path), symbol), ctypes.c_void_p).value for path in libraries}
    assert len(addresses) == len(libraries)


def test_bench_sees_wrong_results():
    for kind in KINDS:
        case = make_case(8, 64, 64, kind)
        assert our_error(case)[0] <= case.x.is_quantized
        weight, *rest = acl_qlinear.unpack(case.layers["acl"].packed)
        weight[5] += 1
        case.layers["acl"].packed = acl_qlinear.prepack_int8(weight, *rest)
        error, share = our_error(case)
        assert error > 0 and share > 0, kind
