# SPDX-License-Identifier: MIT
"""The layer in integer arithmetic, in numpy: what the operators are checked against.

Sums are exact; everything after them is in float64, except that a multiplier is first rounded
to float32, as PyTorch does (fbgemm's requantization).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ACTIVATIONS = {
    "none": lambda v, slope: v,
    "relu": lambda v, slope: np.maximum(v, 0),
    "leaky_relu": lambda v, slope: np.where(v < 0, v * np.float64(np.float32(slope)), v),
    "tanh": lambda v, slope: np.tanh(v),
    "gelu": lambda v, slope: v * (1 + np.vectorize(math.erf, otypes=[float])(v / math.sqrt(2))) / 2,
    "gelu_tanh": lambda v, slope: v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
    "silu": lambda v, slope: v / (1 + np.exp(-np.clip(v, -700, None))),
}  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """Integers and what they stand for: real = scale * (values - zero_point).

    Attributes:
        values: The integers.
        scale: A number, or a vector: [N] for a weight [N, K], [M, 1] for activations [M, K].
        zero_point: As scale.
    """

    values: np.ndarray
    scale: Any
    zero_point: Any


def row_quantization(
    x: np.ndarray,
    symmetric: bool = False,
    narrow_range: bool = False,
    rounded: Callable[[np.ndarray], np.ndarray] = lambda value: value,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and zero point, [M, 1], of each row as int8: torchao's `choose_qparams_affine`.

    Args:
        x: float32 [M, K].
        symmetric: As in `acl_qlinear.linear_dynamic`.
        narrow_range: As in `acl_qlinear.linear_dynamic`.
        rounded: What x's own dtype, where it is another one, makes of a float32 value.
    """
    low, high = np.minimum(x.min(axis=1, keepdims=True), 0), np.maximum(x.max(axis=1, keepdims=True), 0)
    if symmetric:
        scale = rounded(np.maximum(-low, high) / np.float32(127 if narrow_range else 127.5))
        smallest = rounded(np.array(1e-5 if narrow_range else 2**-23, np.float32))
        return np.maximum(scale, smallest), np.zeros(scale.shape, np.int64)
    scale = np.maximum(rounded(rounded(high - low) / np.float32(255)), np.float32(2**-23))
    return scale, np.clip(-128 - np.rint(rounded(low / scale)), -128, 127).astype(np.int64)


def quantize(x: np.ndarray, scale: Any, zero_point: Any, integer: type = np.int8) -> Quantized:
    """Returns float32 values as integers: ties to even, saturation.

    Args:
        x: float32, any shape.
        scale: Its reciprocal is rounded to float32 and multiplied with. A number, or one for each row, [M, 1].
        zero_point: What 0 becomes; as scale.
        integer: np.int8 or np.uint8.
    """
    steps = x.astype(np.float32) * (np.float32(1) / np.float32(scale))
    return Quantized(_saturated(steps, zero_point, integer), scale, zero_point)


def _saturated(steps: np.ndarray, zero_point: Any, integer: type) -> np.ndarray:
    """Rounds, ties to even, and adds the zero point."""
    limits = np.iinfo(integer)
    return np.clip(np.rint(steps) + zero_point, limits.min, limits.max).astype(integer)


def sums(x: Quantized, weight: Quantized) -> np.ndarray:
    """Returns the integer products of x, [M, K], with weight, [N, K], without their zero points: [M, N], int64."""
    weights = weight.values.astype(np.int64) - np.reshape(np.asarray(weight.zero_point, np.int64), (-1, 1))
    # In a third of the time of numpy's product of matrices, which is slow for integers.
    return np.einsum("mk,nk->mn", x.values.astype(np.int64) - x.zero_point, weights)


def linear(
    x: Quantized,
    weight: Quantized,
    bias: np.ndarray | None = None,
    output: tuple[type, float, int] | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
) -> np.ndarray:
    """Returns f(x W^T + b), [M, N].

    Args:
        x: [M, K], uint8 or int8.
        weight: [N, K], int8.
        bias: float32 [N], or None.
        output: None for float64 results; or the dtype, scale and zero point of integer ones.
        activation: As in `acl_qlinear.linear`.
        negative_slope: Of leaky_relu.
    """
    integer, scale, zero_point = output or (np.int8, 1.0, 0)
    unit = scale if activation in ("none", "relu", "leaky_relu") else 1.0
    multiplier = np.float32(x.scale * np.asarray(weight.scale, np.float64) / unit).astype(np.float64)
    offset = 0 if bias is None else bias.astype(np.float64) / unit
    value = ACTIVATIONS[activation](sums(x, weight) * multiplier + offset, negative_slope)
    if output is None:
        return value
    return _saturated(value / (scale / unit), zero_point, integer)


def add(a: Quantized, b: Quantized, output: tuple[type, float, int], relu: bool = False) -> np.ndarray:
    """Returns a + b: as documented for `acl_qlinear.add`.

    Args:
        a: uint8 or int8, any shape.
        b: As a.
        output: The dtype, scale and zero point of the result.
        relu: Whether the result is not below its zero point.
    """
    integer, scale, zero_point = output
    multipliers = [np.float32(x.scale / scale) for x in (a, b)]
    terms = [x.values.astype(np.float32) - np.float32(x.zero_point) for x in (a, b)]
    # Exact in float64, and so rounded once.
    total = terms[0].astype(np.float64) * multipliers[0] + (terms[1] * multipliers[1])
    y = _saturated(total.astype(np.float32), zero_point, integer)
    return np.maximum(y, integer(zero_point)) if relu else y
