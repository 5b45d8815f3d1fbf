# SPDX-License-Identifier: MIT
"""Other libraries that quantize linear layers, and what such a layer computes with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .modules import in_range

Options = dict[str, Any]


class Int8Layer(NamedTuple):
    """What a layer of another library's computes with.

    Attributes:
        weight: int8 [N, K].
        scale: float64 [1] or [N].
        zero_point: int64, as scale.
        dtype: The weight's dtype when it is dequantized.
        dynamic: Arguments of `DynamicLinear`; None for a static layer.
        static: Scale and zero point of a static layer's input.
        pre_scale: float32 [K], what the input is multiplied by first; or None.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    dtype: torch.dtype
    dynamic: Options | None = None
    static: tuple[float, int] | None = None
    pre_scale: Tensor | None = None

    def with_static_input(self, scale: Tensor, zero_point: Tensor | None) -> "Int8Layer":
        """The same with an input that is quantized with these. Raises ValueError for other than one scale."""
        if scale.numel() != 1:
            raise ValueError(f"its input has {scale.numel()} static scales, expected 1")
        offset = 0 if zero_point is None else int(zero_point.item())
        return self._replace(static=(in_range("x_scale", scale.item()), in_range("x_zero_point", offset)))


def of_weight(values: Tensor, scale: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Int8Layer:
    """A layer with this weight, int8 [N, K]; scale and zero point of any shape, with 1 or N elements.

    A zero point without elements stands for none.
    """
    scale = scale.detach().double().flatten()
    if zero_point is None or not zero_point.numel():
        zero_point = torch.zeros_like(scale)
    return Int8Layer(values.detach(), scale, zero_point.detach().long().flatten(), dtype)


class Library(NamedTuple):
    """A library that quantizes linear layers. It is not imported.

    Attributes:
        name: As people write it.
        package: As Python imports it.
        own: Parameters that its layers have besides weight and bias.
        is_theirs: Whether it quantized a layer.
        int8_layer: What a layer of its computes with. Raises ValueError, with the reason, where none of our
            layers computes the same.
    """

    name: str
    package: str
    own: frozenset[str]
    is_theirs: Callable[[nn.Linear], bool]
    int8_layer: Callable[[nn.Linear], Int8Layer]

    def has(self, module: str) -> bool:
        """Whether one of Python's modules is of this library."""
        return module.partition(".")[0] == self.package
