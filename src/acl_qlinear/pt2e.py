# SPDX-License-Identifier: MIT
"""PyTorch 2 Export quantization (torchao's, and torch.ao's before it): its linear layers on ACL.

`convert_pt2e` leaves, for every quantized linear layer, the operations

    quantize → dequantize ─┐
    int8 weight → dequantize → aten.linear → [activation function] → [quantize → dequantize]

of which `lower` makes one: quantize → acl_qlinear.linear_int8, or, where the scale is chosen
at run time, acl_qlinear.linear_dynamic.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

# Registers torch.ops.quantized_decomposed.
import torch.ao.quantization.fx._decomposed  # isort: skip

from .ops import prepack_int8

_q = torch.ops.quantized_decomposed
_aten = torch.ops.aten
_acl = torch.ops.acl_qlinear

_RANGES = {torch.int8: (-128, 127), torch.uint8: (0, 255)}
_ACTIVATIONS = {
    _aten.relu.default: "relu", _aten.relu_.default: "relu", _aten.leaky_relu.default: "leaky_relu",
    _aten.leaky_relu_.default: "leaky_relu", _aten.tanh.default: "tanh", _aten.gelu.default: "gelu",
    _aten.silu.default: "silu", _aten.silu_.default: "silu",
}  # fmt: skip


@dataclass(frozen=True)
class _Activation:
    name: str
    negative_slope: float


def lower(model: fx.GraphModule) -> fx.GraphModule:
    """Maps the quantized linear layers of what `convert_pt2e` returned to our operators, in place.

    ReLU, leaky ReLU, tanh, GELU and SiLU become part of the operator, and so does the quantization of
    the output. Layers of another form stay as they are; `acl_qlinear.report` lists them. The packed
    weights are for the CPU that this runs on.

    Dynamic layers get scale and zero point as `acl_qlinear.linear_dynamic` chooses them. These may
    differ from those of `choose_qparams` in the last place.

    Args:
        model: Static or dynamic. Weights are int8, per tensor or per channel along the output
            features, and folded into the module, which is convert_pt2e's default.

    Returns:
        `model`.
    """
    for node in list(model.graph.nodes):
        if node.op == "call_function" and node.target is _aten.linear.default:
            _lower_linear(model, node)
    model.graph.eliminate_dead_code()
    model.delete_all_unused_submodules()
    _delete_unused_weights(model)
    model.recompile()
    return model


def _lower_linear(model: fx.GraphModule, node: fx.Node) -> None:
    dequantized, weight = node.args[0], _packed(model, node)
    if weight is None or not isinstance(dequantized, fx.Node):
        return
    last, activation = _following_activation(node)
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    if dequantized.target is _q.dequantize_per_tensor.default and dequantized.args[5] in _RANGES:
        last, output = _following_quantization(last)
        x, x_scale, x_zero_point = dequantized.args[:3]
        before, after, operator = (x, x_scale, x_zero_point), output, _acl.linear_int8.default
    elif (dynamic := _dynamic_input(dequantized)) is not None:
        x, reduce_range = dynamic
        before, after, operator = (x,), (reduce_range, None), _acl.linear_dynamic.default
    else:
        return
    with model.graph.inserting_before(node):
        args = (*before, _constant(model, weight), *after, activation.name, activation.negative_slope)
        new = model.graph.call_function(operator, args)
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)


def _value(model: fx.GraphModule, node: Any) -> Any:
    """The tensor that a get_attr node stands for; numbers and None as they are."""
    if not isinstance(node, fx.Node):
        return node
    if node.op != "get_attr":
        raise LookupError
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _packed(model: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The packed weight of an aten.linear whose weight is a dequantized constant, else None."""
    source = node.args[1]
    bias = node.args[2] if len(node.args) > 2 else None
    try:
        if source.target is _q.dequantize_per_channel.default:
            if source.args[3] != 0:
                return None
            weight, scale, zero_point = (_value(model, arg) for arg in source.args[:3])
        elif source.target is _q.dequantize_per_tensor.default:
            weight = _value(model, source.args[0])
            scale, zero_point = torch.tensor(source.args[1], dtype=torch.float64), torch.tensor(source.args[2])
        else:
            return None
        bias = _value(model, bias)
    except LookupError:
        return None
    if weight.dtype != torch.int8:
        return None
    return prepack_int8(weight, scale, zero_point, None if bias is None else bias.detach().float())


def _following_activation(node: fx.Node) -> tuple[fx.Node, _Activation]:
    """An activation function that is all that becomes of a node, else the node itself."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or user.target not in _ACTIVATIONS:
        return node, _Activation("none", 0.01)
    name = _ACTIVATIONS[user.target]
    slope = user.args[1] if name == "leaky_relu" and len(user.args) > 1 else 0.01
    if name == "gelu" and user.kwargs.get("approximate") == "tanh":
        name = "gelu_tanh"
    return user, _Activation(name, float(slope))


def _following_quantization(node: fx.Node) -> tuple[fx.Node, tuple[float, int, torch.dtype]]:
    """A quantization to all of int8 or uint8 that is all that becomes of a node: scale, zero point, dtype."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is not None and user.target is _q.quantize_per_tensor.default:
        scale, zero_point, low, high, dtype = user.args[1:6]
        if _RANGES.get(dtype) == (low, high):
            return user, (scale, zero_point, dtype)
    return node, (1.0, 0, torch.float32)


def _dynamic_input(dequantized: fx.Node) -> tuple[fx.Node, bool] | None:
    """What a tensor was before it was quantized with its own range, and whether to 7 bits; else None."""
    if dequantized.target is not _q.dequantize_per_tensor.tensor:
        return None
    quantized: Any = dequantized.args[0]
    if quantized.target is not _q.quantize_per_tensor.tensor:
        return None
    x, scale = quantized.args[:2]
    chosen: Any = scale.args[0] if isinstance(scale, fx.Node) and scale.args else None
    if not isinstance(chosen, fx.Node) or chosen.target is not _q.choose_qparams.tensor or chosen.args[0] is not x:
        return None
    steps = quantized.args[4] - quantized.args[3]
    return (x, steps == 127) if steps in (127, 255) else None


def _constant(model: fx.GraphModule, value: Tensor) -> fx.Node:
    number = sum(name.startswith("_acl_packed_") for name, _ in model.named_buffers())
    model.register_buffer(f"_acl_packed_{number}", value)
    return model.graph.get_attr(f"_acl_packed_{number}")


def _delete_unused_weights(model: fx.GraphModule) -> None:
    used = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    for tensors in (model._parameters, model._buffers):
        for name in [name for name in tensors if name not in used]:
            delattr(model, name)
    for name in [n for n, value in vars(model).items() if isinstance(value, Tensor) and n not in used]:
        delattr(model, name)
