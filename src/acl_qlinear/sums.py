# SPDX-License-Identifier: MIT
"""Sums of two quantized tensors in models that torch.ao.quantization made: those of residual blocks."""

import torch
import torch.ao.nn.quantized as nnq
from torch import Tensor, fx, nn

# PyTorch's operators, and ours in their place: `acl_qlinear.add` where that does the same, else PyTorch's.
_theirs = (torch.ops.quantized.add, torch.ops.quantized.add_relu)
_add, _add_relu = torch.ops.acl_qlinear.quantized_add, torch.ops.acl_qlinear.quantized_add_relu


class QFunctional(nnq.QFunctional):
    """torch.ao.nn.quantized.QFunctional with sums by `acl_qlinear.add`."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns x + y."""
        return self.activation_post_process(_add(x, y, self.scale, self.zero_point))

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns relu(x + y)."""
        return self.activation_post_process(_add_relu(x, y, self.scale, self.zero_point))


def take_sums(model: nn.Module) -> None:
    """Has a model's sums of two quantized tensors computed by `acl_qlinear.add`."""
    for module in model.modules():
        if type(module) is nnq.QFunctional:
            module.__class__ = QFunctional
        elif isinstance(module, fx.GraphModule):
            _take_sums_of_graph(module)


def _take_sums_of_graph(module: fx.GraphModule) -> None:
    # With a number, they have other arguments.
    sums = [
        node
        for node in module.graph.nodes
        if any(node.target is theirs for theirs in _theirs)
        and len(node.args) + len(node.kwargs) == 4
        and isinstance(node.args[1] if len(node.args) > 1 else node.kwargs.get("qb"), fx.Node)
    ]
    for node in sums:
        node.target = _add if node.target is _theirs[0] else _add_relu
    if sums:
        module.recompile()
