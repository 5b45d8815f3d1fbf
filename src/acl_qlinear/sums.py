# SPDX-License-Identifier: MIT
"""Sums of two quantized tensors in models that torch.ao.quantization made: those of residual blocks."""

from typing import Any

import torch
import torch.ao.nn.quantized as nnq
from torch import Tensor, fx, nn
from torch.overrides import handle_torch_function, has_torch_function_variadic

_ours = torch.ops.acl_qlinear.add
_add, _add_relu = torch.ops.quantized.add, torch.ops.quantized.add_relu


def add(x: Tensor, y: Tensor, scale: float, zero_point: int) -> Tensor:
    """torch.ops.quantized.add, by `acl_qlinear.add` where that is possible."""
    # As torch.nn.functional does: torch.fx, which loads graphs by tracing them, then sees one call.
    if has_torch_function_variadic(x, y):
        return handle_torch_function(add, (x, y), x, y, scale, zero_point)
    if _are_alike(x, y):
        return _ours(x, y, scale, zero_point)
    return _add(x, y, scale, zero_point)


def add_relu(x: Tensor, y: Tensor, scale: float, zero_point: int) -> Tensor:
    """torch.ops.quantized.add_relu, by `acl_qlinear.add` where that is possible."""
    if has_torch_function_variadic(x, y):
        return handle_torch_function(add_relu, (x, y), x, y, scale, zero_point)
    if _are_alike(x, y):
        return _ours(x, y, scale, zero_point, True)
    return _add_relu(x, y, scale, zero_point)


def _are_alike(x: Tensor, y: Tensor) -> bool:
    """Whether nothing is broadcast, and both are contiguous, as `acl_qlinear.add`'s result is."""
    is_8bit = x.dtype == torch.quint8 or x.dtype == torch.qint8
    return is_8bit and x.dtype == y.dtype and x.shape == y.shape and x.is_contiguous() and y.is_contiguous()


class QFunctional(nnq.QFunctional):
    """torch.ao.nn.quantized.QFunctional with sums by `acl_qlinear.add`."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns x + y."""
        return self.activation_post_process(add(x, y, self.scale, self.zero_point))

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns relu(x + y)."""
        return self.activation_post_process(add_relu(x, y, self.scale, self.zero_point))


_OF_GRAPHS: dict[Any, Any] = {_add: add, _add_relu: add_relu}


def take_sums(model: nn.Module) -> None:
    """Has a model's sums of two quantized tensors computed by `acl_qlinear.add`."""
    for module in model.modules():
        if type(module) is nnq.QFunctional:
            module.__class__ = QFunctional
        elif isinstance(module, fx.GraphModule):
            _take_sums_of_graph(module)


def _take_sums_of_graph(module: fx.GraphModule) -> None:
    # Of a number and a tensor, there are two others.
    sums = [
        node
        for node in module.graph.nodes
        if node.target in _OF_GRAPHS and len(node.args) == 4 and isinstance(node.args[1], fx.Node)
    ]
    for node in sums:
        node.target = _OF_GRAPHS[node.target]
    if sums:
        module.recompile()
