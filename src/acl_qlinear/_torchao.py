# SPDX-License-Identifier: MIT
"""Layers whose weights torchao's `quantize_` made, and what they compute, of torchao 0.14 to 0.18.

torchao is not imported: a weight tells by its class and its attributes what it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._libraries import Int8Layer, Library, Options, of_weight

# How torchao up to 0.17 quantizes activations, by the name of the function that does it.
_BY_FUNCTION: dict[str, Options] = {
    "_int8_symm_per_token_reduced_range_quant": {"granularity": "row", "symmetric": True, "narrow_range": True},
    "_int8_asymm_per_token_quant": {"granularity": "row"},
}
# The same by what Int8Tensor's act_quant_kwargs has.
_BY_MAPPING: dict[str, Options] = {
    "SYMMETRIC": {"granularity": "row", "symmetric": True},
    "ASYMMETRIC": {"granularity": "row"},
}
_WEIGHT_ONLY = (
    "torchao multiplies its weight with float activations: quantize_ with Int8DynamicActivationInt8WeightConfig "
    "quantizes those, too"
)


def _is_theirs(module: nn.Linear) -> bool:
    return LIBRARY.has(type(module._parameters.get("weight")).__module__)


def _int8_layer(module: nn.Linear) -> Int8Layer:
    kind = type(module.weight).__name__
    try:
        return _of_weight(module.weight, kind)
    except AttributeError as error:
        raise ValueError(f"its weight is torchao's {kind} of a form that is not known here: {error}") from error


def _of_weight(weight: Any, kind: str) -> Int8Layer:
    if kind == "Int8Tensor":
        return _of_int8_tensor(weight)
    if kind == "LinearActivationQuantizedTensor":
        function = getattr(weight.input_quant_func, "__name__", repr(weight.input_quant_func))
        options = weight.quant_kwargs
        if function not in _BY_FUNCTION or options:
            raise ValueError(
                f"torchao quantizes its activations by {function}({options or ''}), expected int8 by token"
            )
        return _of_affine_tensor(weight.original_weight_tensor)._replace(dynamic=_BY_FUNCTION[function])
    if kind == "AffineQuantizedTensor":
        raise ValueError(_WEIGHT_ONLY)
    raise ValueError(f"its weight is torchao's {kind}, expected int8 weights with int8 activations")


def _of_affine_tensor(weight: Any) -> Int8Layer:
    if type(weight).__name__ != "AffineQuantizedTensor":
        raise ValueError(f"its weight is torchao's {type(weight).__name__}, expected int8 weights")
    return _layer(weight, *weight.tensor_impl.get_plain())


def _of_int8_tensor(weight: Any) -> Int8Layer:
    activations = weight.act_quant_kwargs
    if activations is None:
        raise ValueError(_WEIGHT_ONLY)
    if getattr(activations, "reduce_range", False):
        raise ValueError("torchao quantizes its activations to 7 bits (reduce_range), expected 8")
    layer = _layer(weight, weight.qdata, weight.scale, getattr(weight, "zero_point", None))
    if (pre_scale := getattr(weight, "act_pre_scale", None)) is not None:
        if pre_scale.numel() not in (1, K := weight.shape[1]):
            raise ValueError(f"its act_pre_scale has shape {list(pre_scale.shape)}, expected 1 or {K} elements")
        layer = layer._replace(pre_scale=pre_scale.detach().float().flatten().expand(K))
    if (scale := getattr(weight, "act_quant_scale", None)) is not None:
        return layer.with_static_input(scale, getattr(weight, "act_quant_zero_point", None))
    if (granularity := type(activations.granularity).__name__) != "PerRow":
        raise ValueError(f"torchao finds its activations' scale with {granularity}, expected PerRow")
    return layer._replace(dynamic=_BY_MAPPING[activations.mapping_type.name])


def _layer(weight: Any, values: Tensor, scale: Tensor, zero_point: Tensor | None) -> Int8Layer:
    """The layer of a weight of torchao's that is made of these."""
    N, K = weight.shape
    if values.dtype != torch.int8 or values.shape != weight.shape:
        raise ValueError(f"its weight is {values.dtype} {list(values.shape)}, expected int8 [{N}, {K}]")
    if tuple(weight.block_size) not in ((1, K), (N, K)):
        raise ValueError(
            f"its weight has a scale for each block of {list(weight.block_size)}, expected one for each row, or for all"
        )
    return of_weight(values, scale, zero_point, weight.dtype)


LIBRARY: Library = Library("torchao", "torchao", frozenset(), _is_theirs, _int8_layer)
