"""The operators and modules, inside an installed prefix: results, packing, threads, errors.

Expected results are `acl_qlinear.bench.reference`: integer arithmetic in numpy.
"""

import ctypes
import hashlib
import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import acl_qlinear
from acl_qlinear.bench import DTYPES, SHAPES, make_case, max_error, reference

INTEGER = {torch.quint8: torch.uint8, torch.qint8: torch.int8}


def quantized(values: np.ndarray, scale: float, zero_point: int) -> torch.Tensor:
    """A quantized tensor with these integers."""
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(values), scale, zero_point)


def random_case(rng: np.random.Generator, M: int, K: int, N: int, integer: type) -> tuple[np.ndarray, np.ndarray]:
    limits = np.iinfo(integer)
    return (
        rng.integers(limits.min, limits.max, (M, K), integer, endpoint=True),
        rng.integers(-128, 127, (N, K), np.int8, endpoint=True),
    )


# Errors over all examples of a property test: the promise is about a share of elements.
OFF = {"off": 0, "all": 0}

sizes = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 96, 97, 130, 200]))


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    M=sizes,
    K=st.one_of(sizes, st.sampled_from([768, 3080])),
    N=sizes,
    integer=st.sampled_from([np.uint8, np.int8]),
    data=st.data(),
    log_multiplier=st.floats(-14, 3),
    with_bias=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_results(M, K, N, integer, data, log_multiplier, with_bias, relu, seed):
    limits = np.iinfo(integer)
    x_zero = data.draw(st.integers(limits.min, limits.max))
    y_zero = data.draw(st.integers(limits.min, limits.max))
    rng = np.random.default_rng(seed)
    x, w = random_case(rng, M, K, N, integer)
    x_scale, w_scale = rng.uniform(0.001, 0.1, 2)
    # Multipliers from 2^-14 to 8: with wide sums the largest saturate nearly everywhere.
    y_scale = x_scale * w_scale / 2**log_multiplier
    bias = rng.normal(0, 30 * y_scale, N).astype(np.float32) if with_bias else None

    packed = acl_qlinear.prepack(quantized(w, w_scale, 0), None if bias is None else torch.from_numpy(bias))
    operator = acl_qlinear.linear_relu if relu else acl_qlinear.linear
    y = operator(quantized(x, x_scale, x_zero), packed, y_scale, y_zero)
    assert (y.q_scale(), y.q_zero_point(), tuple(y.shape)) == (y_scale, y_zero, (M, N))

    in_lsb = None if bias is None else bias.astype(np.float64) / y_scale
    expected = reference(x, x_zero, w, x_scale * w_scale / y_scale, in_lsb, y_zero, relu)
    difference = np.abs(y.int_repr().numpy().astype(np.int64) - expected.astype(np.int64))
    assert difference.max() <= 1
    OFF["off"] += int((difference > 0).sum())
    OFF["all"] += difference.size


def test_share_of_elements_that_are_one_off():
    for shape in [*SHAPES, (64, 768, 3072), (1, 768, 3072), (1, 64, 512)]:
        for dtype in DTYPES.values():
            x, layer = make_case(*shape, dtype)
            lsb, share = max_error(x, layer, acl_qlinear.Linear.from_torch(layer)(x))
            assert lsb <= 1
            size = shape[0] * shape[2]
            OFF["off"] += round(share * size)
            OFF["all"] += size
    print(f"\n{OFF['off']} of {OFF['all']} elements are 1 LSB off")
    assert OFF["all"] > 500_000 and OFF["off"] <= 1e-4 * OFF["all"]


@pytest.mark.parametrize("multiplier", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("integer", [np.uint8, np.int8])
def test_ties_go_to_even(multiplier, integer):
    # K = 1 and weight 1: the sums are the inputs, and every half is met.
    zero = 128 if integer is np.uint8 else 0
    x = np.arange(256).astype(np.uint8).view(integer).reshape(256, 1)
    w = np.array([[1], [-1]], np.int8)
    y = acl_qlinear.linear(
        quantized(x, multiplier, zero), acl_qlinear.prepack(quantized(w, 1.0, 0)), 1.0, zero
    ).int_repr()
    assert np.array_equal(y.numpy(), reference(x, zero, w, multiplier, None, zero))


def test_saturation_at_both_ends():
    for integer, zero in ((np.uint8, 100), (np.int8, -3)):
        limits = np.iinfo(integer)
        x = np.full((3, 512), limits.max, integer)
        w = np.stack([np.full(512, 127, np.int8), np.full(512, -128, np.int8)])
        y = acl_qlinear.linear(quantized(x, 1.0, zero), acl_qlinear.prepack(quantized(w, 1.0, 0)), 1.0, zero)
        assert np.array_equal(y.int_repr().numpy(), np.tile([limits.max, limits.min], (3, 1)).astype(integer))


def test_relu_is_never_below_zero_point():
    x, layer = make_case(8, 64, 64, torch.quint8)
    fused = torch.ao.nn.intrinsic.quantized.LinearReLU(64, 64)
    fused.set_weight_bias(layer.weight(), layer.bias())
    fused.scale, fused.zero_point = layer.scale, layer.zero_point
    y = acl_qlinear.LinearReLU.from_torch(fused)(x).int_repr()
    plain = acl_qlinear.Linear.from_torch(layer)(x).int_repr()
    assert torch.equal(y, plain.clamp(min=layer.zero_point)) and not torch.equal(y, plain)


def test_a_row_depends_on_nothing_but_itself():
    """Same bits for every M and thread count; the digest is compared between prefixes."""
    digest = hashlib.sha256()
    for name, dtype in DTYPES.items():
        for K, N in ((64, 96), (768, 200), (13, 5)):
            x, layer = make_case(230, K, N, dtype)
            ours = acl_qlinear.Linear.from_torch(layer)
            whole = ours(x).int_repr()
            for M in (1, 2, 5, 6, 7, 8, 9, 50, 96, 97, 193):
                assert torch.equal(ours(x[:M]).int_repr(), whole[:M]), (name, K, N, M)
            for threads in (2, 3, 4):
                torch.set_num_threads(threads)
                for M in (1, 8, 100, 230):
                    assert torch.equal(ours(x[:M]).int_repr(), whole[:M]), (name, K, N, M, threads)
            torch.set_num_threads(1)
            digest.update(whole.numpy().tobytes())
    print(f"\ndigest {digest.hexdigest()}")


def test_no_rows():
    _, layer = make_case(1, 64, 64, torch.quint8)
    empty = torch.quantize_per_tensor(torch.empty(0, 64), 0.1, 3, torch.quint8)
    assert acl_qlinear.Linear.from_torch(layer)(empty).shape == (0, 64)


def test_strided_input():
    x, layer = make_case(64, 64, 32, torch.qint8)
    ours = acl_qlinear.Linear.from_torch(layer)
    assert torch.equal(ours(x.t()).int_repr(), ours(x.t().contiguous()).int_repr())
    assert torch.equal(ours(x[::3]).int_repr(), ours(x).int_repr()[::3])


def test_weights_are_packed_once_and_only_read():
    """The packed bytes are in pages that cannot be written, for every M and thread count."""
    x, layer = make_case(200, 128, 256, torch.quint8)
    ours = acl_qlinear.Linear.from_torch(layer)
    expected = ours(x).int_repr()
    page = os.sysconf("SC_PAGESIZE")
    size = (ours.packed.numel() + 2 * page) // page * page
    room = torch.empty(size + page, dtype=torch.uint8)
    offset = -room.data_ptr() % page
    copy = room[offset : offset + ours.packed.numel()]
    copy.copy_(ours.packed)
    libc = ctypes.CDLL(None, use_errno=True)
    start = ctypes.c_void_p(copy.data_ptr())
    whole_pages = ours.packed.numel() // page * page
    assert libc.mprotect(start, ctypes.c_size_t(whole_pages), 1) == 0, os.strerror(ctypes.get_errno())
    try:
        ours.packed = copy
        for M in (1, 3, 8, 97, 200):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                assert torch.equal(ours(x[:M]).int_repr(), expected[:M])
    finally:
        torch.set_num_threads(1)
        libc.mprotect(start, ctypes.c_size_t(whole_pages), 3)


def test_packed_weight_takes_at_most_2_2_bytes_per_weight():
    _, layer = make_case(1, 768, 768, torch.quint8)
    assert acl_qlinear.Linear.from_torch(layer).packed.numel() <= 2.2 * 768 * 768


def test_python_threads_at_once():
    x, layer = make_case(33, 256, 128, torch.quint8)
    ours = acl_qlinear.Linear.from_torch(layer)
    expected = ours(x).int_repr()
    results: list[bool] = []

    def work(M: int) -> None:
        results.extend(torch.equal(ours(x[:M]).int_repr(), expected[:M]) for _ in range(5))

    threads = [threading.Thread(target=work, args=(M,)) for M in (1, 4, 9, 33) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_work_is_on_pytorchs_own_threads():
    """set_num_threads(4) starts three threads, for our layer and PyTorch's together."""

    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    x, layer = make_case(400, 256, 256, torch.quint8)
    ours = acl_qlinear.Linear.from_torch(layer)
    ours(x)
    before = count()
    try:
        torch.set_num_threads(4)
        ours(x)
        after_ours = count()
        torch.randn(512, 512).sin()
        after_both = count()
    finally:
        torch.set_num_threads(1)
    assert after_ours == after_both and after_ours > 1
    # Earlier tests may have started them already.
    assert before <= after_ours <= 4 + before


def make_packed() -> torch.Tensor:
    return acl_qlinear.prepack(torch.quantize_per_tensor(torch.randn(8, 16), 0.1, 0, torch.qint8))


def good_x() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(4, 16), 0.1, 3, torch.quint8)


def per_channel() -> torch.Tensor:
    return torch.quantize_per_channel(torch.randn(8, 16), torch.full((8,), 0.1), torch.zeros(8).long(), 0, torch.qint8)


@pytest.mark.parametrize(
    ("weight", "bias", "error", "message"),
    [
        (lambda: torch.randn(8, 16), None, TypeError, r"weight is Float \[8, 16\] on cpu, expected a qint8 CPU"),
        (good_x, None, TypeError, r"weight is QUInt8 \[4, 16\]"),
        (lambda: good_w()[None], None, ValueError, r"weight has shape \[1, 8, 16\], expected \[out_features"),
        (lambda: good_w(zero_point=3), None, ValueError, "weight has zero point 3, expected 0"),
        (per_channel, None, ValueError, "weight has scheme per_channel_affine, expected per_tensor_affine"),
        (lambda: good_w(), lambda: torch.randn(7), ValueError, r"bias has shape \[7\], expected \[8\]"),
        (lambda: good_w(), lambda: torch.randn(8).double(), TypeError, r"bias is Double \[8\]"),
        (lambda: good_w(), lambda: torch.full((8,), float("nan")), ValueError, r"bias\[0\] is nan"),
        (lambda: good_w(K=70000, N=1), None, ValueError, "K=70000 input features, expected 1 to 65793"),
    ],
)
def test_bad_weight(weight, bias, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.prepack(weight(), bias and bias())


def good_w(K: int = 16, N: int = 8, zero_point: int = 0) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(N, K), 0.1, zero_point, torch.qint8)


def forged(change) -> torch.Tensor:
    packed = make_packed().clone()
    change(packed)
    return packed


@pytest.mark.parametrize(
    ("x", "packed", "scale", "zero_point", "error", "message"),
    [
        (lambda: torch.randn(4, 16), make_packed, 0.1, 0, TypeError, "x is Float .*expected a quint8 or qint8"),
        (lambda: good_x()[0], make_packed, 0.1, 0, ValueError, r"x has shape \[16\], expected \[M, in_features\]"),
        (lambda: good_x()[:, :15], make_packed, 0.1, 0, ValueError, r"x has shape \[4, 15\], expected \[M, 16\]"),
        (good_x, lambda: torch.randn(4), 0.1, 0, TypeError, "packed is Float .*prepack returned"),
        (good_x, lambda: make_packed()[:20], 0.1, 0, ValueError, "20 bytes, too few for a packed weight"),
        (good_x, lambda: make_packed()[:-64], 0.1, 0, ValueError, "its header says"),
        (good_x, lambda: torch.zeros(5000, dtype=torch.uint8), 0.1, 0, ValueError, "does not start with the mark"),
        (good_x, lambda: forged(lambda p: p[8].fill_(9)), 0.1, 0, ValueError, "format version 9, expected 1: pack"),
        (good_x, lambda: forged(lambda p: p[12].fill_(77)), 0.1, 0, ValueError, "SVE vectors of 77 bytes, this CPU"),
        (good_x, lambda: forged(lambda p: p[24].fill_(80)), 0.1, 0, ValueError, "its header has been changed: N=80"),
        (good_x, make_packed, 0.1, 256, ValueError, "output_zero_point is 256, expected 0 to 255 for QUInt8"),
        (good_x, make_packed, 0.0, 0, ValueError, "output_scale is 0, expected a finite number above 0"),
        (good_x, make_packed, 1e-44, 0, ValueError, "is not a normal fp32 number"),
    ],
)
def test_bad_call(x, packed, scale, zero_point, error, message):
    with pytest.raises(error, match=message):
        acl_qlinear.linear(x(), packed(), scale, zero_point)


def test_bad_module():
    with pytest.raises(TypeError, match=r"module is a torch\.nn\..*Linear, expected a torch\.ao\.nn\.quantized"):
        acl_qlinear.Linear.from_torch(torch.nn.Linear(4, 4))


def test_onednn_is_the_pinned_one():
    assert f"v{os.environ['ONEDNN_PIN']} " in torch.__config__.show()


def loaded(name: str) -> set[str]:
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if name in line.rsplit("/", 1)[-1]}


def test_one_openmp_and_two_arm_compute_libraries():
    assert len(loaded("libgomp")) == 1
    libraries = loaded("libarm_compute") - loaded("libarm_compute_graph")
    ours = [path for path in libraries if path.endswith(".so.43.0.0")]
    assert len(libraries) == 2 and len(ours) == 1, libraries
    symbol = "_ZN11arm_compute9Scheduler3getEv"
    addresses = {ctypes.cast(getattr(ctypes.CDLL(path), symbol), ctypes.c_void_p).value for path in libraries}
    assert len(addresses) == 2
