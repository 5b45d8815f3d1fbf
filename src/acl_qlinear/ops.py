"""The operators, as functions."""

import torch
from torch import Tensor

_ops = torch.ops.acl_qlinear


def prepack(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Packs the weight of a linear layer for the CPU that it is called on.

    weight: qint8 [N, K], per tensor, zero point 0. bias: float32 [N], in the
    units of the real numbers that the quantized ones stand for, or None.
    Returns an opaque uint8 tensor for `linear`; it can be used from any number
    of threads, with any M, and copied.

    Raises TypeError for another dtype or device, ValueError for another shape,
    scheme or zero point, for K above 65,793 (where 32-bit sums could overflow),
    and for a bias or scale that is not finite.
    """
    return _ops.prepack.default(weight, bias)


def linear(x: Tensor, packed: Tensor, output_scale: float, output_zero_point: int) -> Tensor:
    """y = x W^T + b, quantized.

    x: quint8 or qint8 [M, K], per tensor, any zero point. packed: from `prepack`.
    Returns [M, N] of x's dtype with the given scale and zero point:

        y = clamp(round((sum_k (x - zx) w) * float32(sx sw / sy) + b / sy) + zy)

    with the sum in integers, rounding to nearest, ties to even, and saturation.
    A row of y depends on that row of x alone, bit for bit.

    Raises TypeError and ValueError that name the argument, its value and what
    was expected.
    """
    return _ops.linear.default(x, packed, output_scale, output_zero_point)


def linear_relu(x: Tensor, packed: Tensor, output_scale: float, output_zero_point: int) -> Tensor:
    """max(x W^T + b, 0), quantized: as `linear`, with y no lower than its zero point."""
    return _ops.linear_relu.default(x, packed, output_scale, output_zero_point)
