# SPDX-License-Identifier: MIT
"""Cases for the tests of this folder, and their comparison with acl_qlinear.reference."""

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import numpy as np
import torch

import acl_qlinear
from acl_qlinear import reference
from acl_qlinear.reference import Quantized

TORCH = {"u8": torch.uint8, "s8": torch.int8, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
INTEGER = {"u8": np.uint8, "s8": np.int8}
QUANTIZED = {"u8": torch.quint8, "s8": torch.qint8}


def given(examples: int, **strategies: Any) -> Callable[[Callable], Callable]:
    """hypothesis.given, with the same examples everywhere and on every day, however slow the machine is."""

    def decorate(test: Callable) -> Callable:
        slow = [hypothesis.HealthCheck.too_slow]
        settings = hypothesis.settings(max_examples=examples, deadline=None, database=None, suppress_health_check=slow)
        # A seed, since `derandomize` draws by where pytest is started from.
        return hypothesis.seed(24)(settings(hypothesis.given(**strategies)(test)))  # noqa: TID251

    return decorate


@dataclass
class Errors:
    """Integer results that differ from the reference; the promise is about a share of them."""

    off: int = 0
    all: int = 0

    def add(self, y: np.ndarray, expected: np.ndarray) -> None:
        difference = np.abs(y.astype(np.int64) - expected.astype(np.int64))
        assert difference.max(initial=0) <= 1
        self.off += int((difference > 0).sum())
        self.all += difference.size


@dataclass
class Case:
    """A layer, and an input for it, with seeded random contents."""

    M: int
    K: int
    N: int
    x_type: str = "u8"
    per_channel: bool = True
    with_bias: bool = True
    with_zero_points: bool = False
    log_multiplier: float = -8.0
    x_zero_point: int = 7
    seed: int = 0
    x: torch.Tensor = field(init=False)
    x_quantized: Quantized = field(init=False)
    weight: Quantized = field(init=False)
    bias: np.ndarray | None = field(init=False)
    packed: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        # The weight's own, so that it does not depend on x.
        rng, weight_rng = np.random.default_rng(self.seed), np.random.default_rng([self.seed, 1])
        x_scale = rng.uniform(0.001, 0.1)
        w_scale = weight_rng.uniform(0.001, 0.1, self.N if self.per_channel else 1)
        # The output scale of integer results.
        self.y_scale = float(x_scale * w_scale.max() / 2**self.log_multiplier)
        if self.x_type in INTEGER:
            limits = np.iinfo(INTEGER[self.x_type])
            values = rng.integers(limits.min, limits.max, (self.M, self.K), INTEGER[self.x_type], endpoint=True)
            self.x = torch.from_numpy(values)
            self.x_quantized = Quantized(values, x_scale, self.x_zero_point)
        else:
            values = rng.normal(0, 60 * x_scale, (self.M, self.K)).astype(np.float32)
            self.x = torch.from_numpy(values).to(TORCH[self.x_type])
            self.x_quantized = reference.quantize(self.x.float().numpy(), x_scale, self.x_zero_point)
        weight = weight_rng.integers(-128, 127, (self.N, self.K), np.int8, endpoint=True)
        zero_points = weight_rng.integers(-128, 127, w_scale.size, endpoint=True) * self.with_zero_points
        self.weight = Quantized(weight, w_scale, zero_points)
        self.bias = weight_rng.normal(0, 30 * self.y_scale, self.N).astype(np.float32) if self.with_bias else None
        self.packed = acl_qlinear.prepack_int8(
            torch.from_numpy(weight), torch.from_numpy(w_scale), torch.from_numpy(zero_points), self.torch_bias
        )

    @property
    def torch_bias(self) -> torch.Tensor | None:
        return None if self.bias is None else torch.from_numpy(self.bias)

    def run(self, y_type: str, y_zero_point: int = 0, x: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
        """The operator on this input, or another one with the same quantization."""
        dtype = {} if "out" in options else {"output_dtype": TORCH[y_type]}
        x = self.x if x is None else x
        return acl_qlinear.linear_int8(
            x, self.x_quantized.scale, self.x_zero_point, self.packed, self.y_scale, y_zero_point, **dtype, **options
        )

    def expected(self, y_type: str, y_zero_point: int = 0, **options: Any) -> np.ndarray:
        output = (INTEGER[y_type], self.y_scale, y_zero_point) if y_type in INTEGER else None
        return reference.linear(self.x_quantized, self.weight, self.bias, output, **options)

    def tolerance(self, y_type: str, negative_slope: float = 0.01) -> np.ndarray:
        """Returns how far float results may be from `expected`: roundings in fp32, and to y's type."""
        sums = reference.sums(self.x_quantized, self.weight)
        size = np.abs(sums * self.x_quantized.scale * self.weight.scale) + np.abs(0 if self.bias is None else self.bias)
        # A leaky ReLU with a slope above 1 makes errors larger.
        # Below 2^-14, fp16 has steps of 2^-24.
        digits, smallest = {"f32": (1e-6, 1e-30), "bf16": (2.0**-8, 1e-30), "f16": (2.0**-10, 2.0**-24)}[y_type]
        return digits * size * max(1, abs(negative_slope)) + smallest

    def check(self, y: torch.Tensor, y_type: str, errors: Errors, **options: Any) -> None:
        """Asserts that a result is right."""
        assert y.dtype == TORCH[y_type]
        expected = self.expected(y_type, **options)
        if y_type in INTEGER:
            errors.add(y.reshape(self.M, self.N).numpy(), expected)
        else:
            result = y.reshape(self.M, self.N).double().numpy()
            # What fp16 does not hold is infinite.
            is_beyond = np.isinf(result) & (np.abs(expected) > 65519.9) & (np.sign(result) == np.sign(expected))
            difference = np.where(is_beyond & (y_type == "f16"), 0, np.abs(result - expected))
            tolerance = self.tolerance(y_type, options.get("negative_slope", 0.01))
            assert (difference <= tolerance).all(), (difference / tolerance).max()


def refusals_with_short_vectors(call: Callable[[], Any]) -> tuple[list[str], int | None]:
    """The ValueError of a call where SVE's vectors have 16 bytes; and how many they have, where these are more.

    In a thread of its own, since each has its length.
    """
    get_length, set_length = 51, 50  # PR_SVE_GET_VL, PR_SVE_SET_VL in linux/prctl.h
    prctl = ctypes.CDLL(None).prctl
    messages = []

    def work() -> None:
        prctl(set_length, 16)
        try:
            call()
        except ValueError as error:
            messages.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    length = prctl(get_length)
    # Without SVE, or with vectors of 128 bits, there is nothing to change.
    return messages, length & 0xFFFF if length > 0 and length & 0xFFFF > 16 else None


@contextlib.contextmanager
def under(engine: str) -> Iterator[None]:
    """PyTorch's quantized layers are made and run by this engine of its."""
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def quantized(values: np.ndarray | torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """A quantized tensor, per tensor, with these integers."""
    return torch._make_per_tensor_quantized_tensor(torch.as_tensor(values), scale, zero_point)


def torch_weight(weight: Quantized) -> torch.Tensor:
    """The weight as one of PyTorch's quantized tensors."""
    values = torch.from_numpy(weight.values)
    if np.size(weight.scale) == 1:
        return quantized(values, float(weight.scale[0]), int(weight.zero_point[0]))
    scales, zero_points = torch.from_numpy(weight.scale), torch.from_numpy(weight.zero_point)
    return torch._make_per_channel_quantized_tensor(values, scales, zero_points, 0)


def activations_run(model: torch.nn.Module, *inputs: Any, **named: Any) -> tuple[Any, list[str]]:
    """What the model returns, and the functions that its layers compute, with their slopes."""
    seen = []
    kinds = (acl_qlinear.DynamicLinear, acl_qlinear.CalibratedLinear)
    originals = [kind.activated for kind in kinds]

    def watched(original):
        def activated(layer, x, name, slope):
            seen.append(f"{name} {slope}" if name == "leaky_relu" else name)
            return original(layer, x, name, slope)

        return activated

    try:
        for kind, original in zip(kinds, originals, strict=True):
            kind.activated = watched(original)
        with torch.no_grad():
            return model(*inputs, **named), seen
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.activated = original
