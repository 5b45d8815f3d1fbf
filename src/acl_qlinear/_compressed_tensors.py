# SPDX-License-Identifier: MIT
"""Layers in the format of compressed-tensors, as llm-compressor saves and transformers loads them.

compressed-tensors is not imported: a layer tells by its attributes what it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ._libraries import Int8Layer, Library, of_weight

_WEIGHT_ONLY = "compressed-tensors multiplies its weight with float activations, expected int8 activations (W8A8)"
# What `quantization_status` says of a weight that is float.
_FLOAT = ("frozen", "decompressed")


def _is_theirs(module: nn.Linear) -> bool:
    scheme = vars(module).get("quantization_scheme")
    return scheme is not None and LIBRARY.has(type(scheme).__module__)


def _int8_layer(module: nn.Linear) -> Int8Layer:
    try:
        return _of_scheme(module, module.quantization_scheme)
    except AttributeError as error:
        raise ValueError(f"its form of compressed-tensors' format is not known here: {error}") from error


def _of_scheme(module: Any, scheme: Any) -> Int8Layer:
    weights, inputs = scheme.weights, scheme.input_activations
    if inputs is None:
        raise ValueError(_WEIGHT_ONLY)
    if scheme.output_activations is not None:
        raise ValueError("compressed-tensors quantizes its output, expected its weight and its input alone")
    if not getattr(module, "quantization_enabled", True):
        raise ValueError("its quantization is switched off, expected quantization_enabled = True")
    _check("weight", weights, ("channel", "tensor"))
    layer = of_weight(
        _values(module), module.weight_scale, getattr(module, "weight_zero_point", None), module.weight_scale.dtype
    )
    if not inputs.dynamic:
        _check("input", inputs, ("tensor", "token"))
        return layer.with_static_input(module.input_scale, getattr(module, "input_zero_point", None))
    _check("input", inputs, ("token",))
    return layer._replace(dynamic={"granularity": "row", "symmetric": inputs.symmetric})


def _check(name: str, arguments: Any, strategies: tuple[str, ...]) -> None:
    """Raises ValueError for what is not quantized to int8, with these scales."""
    if arguments is None:
        raise ValueError(f"compressed-tensors leaves its {name} float, expected int8")
    if (kind := f"{_text(arguments.type)}{arguments.num_bits}") != "int8":
        raise ValueError(f"compressed-tensors quantizes its {name} to {kind}, expected int8")
    if (strategy := _text(arguments.strategy)) not in strategies:
        raise ValueError(f"its {name} has a scale for each {strategy}, expected one for each {' or '.join(strategies)}")


def _values(module: Any) -> Tensor:
    """The weight as int8 [N, K]."""
    status, weight = _text(module.quantization_status), module.weight.detach()
    if status in _FLOAT:
        # In float32, other than compressed-tensors: so codes that were dequantized to bf16 come out again.
        weight = weight.float() / module.weight_scale.detach().float()
        if (zero_point := getattr(module, "weight_zero_point", None)) is not None:
            weight += zero_point.detach().float()
        return weight.clamp(-128, 127).round().to(torch.int8)
    if status != "compressed":
        raise ValueError(f"its quantization is {status}, expected compressed, {' or '.join(_FLOAT)}")
    if weight.dtype != torch.int8:
        raise ValueError(f"its compressed weight is {weight.dtype}, expected torch.int8")
    return weight


def _text(value: Any) -> str:
    """An enumeration's value, or the value that it was replaced by."""
    return str(getattr(value, "value", value))


LIBRARY: Library = Library(
    "compressed-tensors",
    "compressed_tensors",
    frozenset({"weight_scale", "weight_zero_point", "input_scale", "input_zero_point"}),
    _is_theirs,
    _int8_layer,
)
