# SPDX-License-Identifier: MIT
"""PyTorch 2 Export quantization (torchao's, and torch.ao's before it): its linear layers on ACL.

`convert_pt2e` leaves, for every quantized linear layer, the operations

    quantize → dequantize ─┐
    int8 weight → dequantize → aten.linear → [activation function] → [quantize → dequantize]

of which `lower` makes one: quantize → acl_qlinear.linear_int8, or, where the scale is chosen
at run time, acl_qlinear.linear_dynamic.
"""

from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx

# Registers torch.ops.quantized_decomposed.
import torch.ao.quantization.fx._decomposed  # isort: skip

from ._defaults import plain_defaults
from ._stable import completed
from .ops import prepack_int8

_q = torch.ops.quantized_decomposed
_aten = torch.ops.aten
_acl = torch.ops.acl_qlinear

_RANGES = {torch.int8: (-128, 127), torch.uint8: (0, 255)}
_ACTIVATIONS = {
    getattr(_aten, name + suffix).default: name
    for name in ("relu", "leaky_relu", "tanh", "gelu", "silu") for suffix in ("", "_")
}  # fmt: skip
# What a packed weight is made of: the arguments of prepack_int8, as numbers, or as names in the model.
_Parts = tuple[Any, ...]


@dataclass(frozen=True)
class _Activation:
    name: str
    negative_slope: float


@plain_defaults()
def lower(model: fx.GraphModule) -> fx.GraphModule:
    """Maps the quantized linear layers of what `convert_pt2e` returned to our operators, in place.

    ReLU, leaky ReLU, tanh, GELU and SiLU become part of the operator, and so does the quantization of
    the output. Layers of another form stay as they are, and so do those that `prepack_int8` or the
    operator refuses; `acl_qlinear.report` lists them. The packed weights are for the CPU that this
    runs on. Layers that share weight and bias share the packed weight.

    Dynamic layers get scale and zero point as `acl_qlinear.linear_dynamic` chooses them. These may
    differ from those of `choose_qparams` in the last place.

    Args:
        model: Static or dynamic, float32, bfloat16 or float16. Weights are int8, per tensor or per channel along
            the output features, and folded into the module, which is convert_pt2e's default.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a torch.fx.GraphModule: an exported program's is its `module()`.
    """
    if not isinstance(model, fx.GraphModule):
        raise TypeError(
            f"model is a {type(model).__name__}, expected what convert_pt2e returns, a torch.fx.GraphModule"
        )
    packed: dict[_Parts, str] = {}
    linears = [n for n in model.graph.nodes if n.op == "call_function" and n.target is _aten.linear.default]
    replaced = {last for node in linears if (last := _lower_linear(model, node, packed)) is not None}
    if replaced:
        _erase(model.graph, replaced)
        _delete_unread_tensors(model)
        model.recompile()
    return model


def _lower_linear(model: fx.GraphModule, node: fx.Node, packed: dict[_Parts, str]) -> fx.Node | None:
    """Puts our operator in the place of a layer and what follows it; the last node of these, None where it cannot.

    packed: The names of packed weights, by what they were made of.
    """
    call = _arguments(node)
    parts, dequantized = _parts(call), call["input"]
    if parts is None or not isinstance(dequantized, fx.Node):
        return None
    last, activation = _following_activation(node)
    end = (activation.name, activation.negative_slope)
    x: Any
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    if dequantized.target is _q.dequantize_per_tensor.default:
        given = _arguments(dequantized)
        x, x_dtype, dtype = given["input"], given["dtype"], given["out_dtype"] or torch.float32
        last, output = _following_quantization(last, dtype)
        operator, before, after = _acl.linear_int8.default, (given["scale"], given["zero_point"]), (*output, *end)
    elif (dynamic := _dynamic_input(dequantized)) is not None:
        x, reduce_range, dtype = dynamic
        x_dtype = x.meta["val"].dtype if "val" in x.meta else dtype
        operator, before, after = _acl.linear_dynamic.default, (), (reduce_range, dtype, *end)
    else:
        return None
    try:
        value = getattr(model, packed[parts]) if parts in packed else _pack(model, parts)
        # What the operator refuses, it refuses for an input without rows, too.
        rows = torch.empty(0, attrgetter(parts[0])(model).shape[1], dtype=x_dtype)
        completed("linear_int8")(operator)(rows, *before, value, *after)
    except (TypeError, ValueError):
        return None
    if parts not in packed:
        packed[parts] = _register(model, value)
    with model.graph.inserting_before(node):
        new = model.graph.call_function(operator, (x, *before, model.graph.get_attr(packed[parts]), *after))
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)
    return last


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, however they were given, and the defaults of those that were not."""
    schema = node.target._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    return {**{argument.name: argument.default_value for argument in schema}, **given, **node.kwargs}


def _parts(call: dict[str, Any]) -> _Parts | None:
    """What a layer's packed weight is made of, where its weight is a dequantized constant; else None."""
    source = call["weight"]
    if source.target not in (_q.dequantize_per_channel.default, _q.dequantize_per_tensor.default):
        return None
    given = _arguments(source)
    scale, zero_point = ("scales", "zero_points") if "axis" in given else ("scale", "zero_point")
    parts = (given["input"], given[scale], given[zero_point], call["bias"])
    if given.get("axis", 0) not in (0, -2) or any(isinstance(p, fx.Node) and p.op != "get_attr" for p in parts):
        return None
    return tuple(part.target if isinstance(part, fx.Node) else part for part in parts)


def _pack(model: fx.GraphModule, parts: _Parts) -> Tensor:
    weight, scale, zero_point, bias = (_tensor(model, part) for part in parts)
    assert weight is not None and scale is not None
    return prepack_int8(weight, scale, zero_point, None if bias is None else bias.float())


def _tensor(model: fx.GraphModule, part: str | float | None) -> Tensor | None:
    """The tensor that a name or a number stands for."""
    if isinstance(part, str):
        return attrgetter(part)(model).detach()
    return None if part is None else torch.tensor([part], dtype=torch.float64 if isinstance(part, float) else None)


def _following_activation(node: fx.Node) -> tuple[fx.Node, _Activation]:
    """An activation function that is all that becomes of a node, else the node itself."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or user.target not in _ACTIVATIONS:
        return node, _Activation("none", 0.01)
    name, given = _ACTIVATIONS[user.target], _arguments(user)
    if given.get("approximate") == "tanh":
        name = "gelu_tanh"
    return user, _Activation(name, float(given.get("negative_slope", 0.01)))


def _following_quantization(node: fx.Node, dtype: torch.dtype) -> tuple[fx.Node, tuple[float, int, torch.dtype]]:
    """A quantization to all of int8 or uint8 that is all that becomes of a node: scale, zero point, dtype.

    Else the node itself, of this dtype.
    """
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is not None and user.target is _q.quantize_per_tensor.default:
        given = _arguments(user)
        if _RANGES.get(given["dtype"]) == (given["quant_min"], given["quant_max"]):
            return user, (given["scale"], given["zero_point"], given["dtype"])
    return node, (1.0, 0, dtype)


def _dynamic_input(dequantized: fx.Node) -> tuple[fx.Node, bool, torch.dtype] | None:
    """What a tensor was before it was quantized with its own range, whether to 7 bits, and its dtype after; or None."""
    if dequantized.target is not _q.dequantize_per_tensor.tensor:
        return None
    after = _arguments(dequantized)
    if after["input"].target is not _q.quantize_per_tensor.tensor:
        return None
    given = _arguments(after["input"])
    x, scale = given["input"], given["scale"]
    chosen: Any = scale.args[0] if scale.args else None
    if not isinstance(chosen, fx.Node) or chosen.target is not _q.choose_qparams.tensor:
        return None
    steps = given["quant_max"] - given["quant_min"]
    if _arguments(chosen)["input"] is not x or steps not in (127, 255):
        return None
    return x, steps == 127, after["out_dtype"] or torch.float32


def _register(model: fx.GraphModule, value: Tensor) -> str:
    """Keeps a packed weight in the model; its name."""
    names = (f"_acl_packed_{number}" for number in count())
    name = next(name for name in names if not hasattr(model, name))
    model.register_buffer(name, value)
    return name


def _erase(graph: fx.Graph, nodes: set[fx.Node]) -> None:
    """Erases nodes that nothing uses any more, and what only they used."""
    for node in reversed(list(graph.nodes)):
        if node in nodes and not node.users and node.op != "placeholder":
            nodes.update(node.all_input_nodes)
            graph.erase_node(node)


def _delete_unread_tensors(model: fx.GraphModule) -> None:
    """Deletes weights that no graph reads any more: those that are packed now, and float ones that were left."""
    read: set[tuple[torch.nn.Module, str]] = set()
    # Modules that are called, or read as a whole, use tensors of their own.
    others: set[torch.nn.Module] = set()
    for node in model.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            path, _, name = str(node.target).rpartition(".")
            owner = model.get_submodule(path)
            value = getattr(owner, name)
            if isinstance(value, torch.nn.Module):
                others.update(value.modules())
            read.add((owner, name))
    for module in set(model.modules()) - others:
        tensors = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        for name in [*module._parameters, *module._buffers, *tensors]:
            if (module, name) not in read:
                delattr(module, name)
