# SPDX-License-Identifier: MIT
"""What became of each linear layer of a model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .inventory import Layer, library_of, linear_layers, obstacle, walk
from .modules import PackedLinear

REPLACED = "replaced"
_REPLACEABLE = "can be replaced: convert(model) has not been called"
_FP32 = "not quantized: acl_qlinear.quantize(model) makes it int8"
_SCRIPT = "unknown: TorchScript does not tell what a module became; call report before torch.jit"
# Linear layers that are functions, in the graphs of torch.fx and torch.export.
_FUNCTIONS = {"quantized::linear", "quantized::linear_relu", "quantized::linear_dynamic", "aten::linear"}


@dataclass(frozen=True)
class LayerStatus:
    """One linear layer of a model.

    Attributes:
        name: The layer's name in the model.
        kind: Its type.
        status: "replaced", or why it is not on ACL, or not known to be.
    """

    name: str
    kind: str
    status: str


@dataclass(frozen=True)
class Report:
    """What became of every linear layer of a model; str() is a table.

    Attributes:
        rows: One for each linear layer.
    """

    rows: list[LayerStatus]

    @property
    def replaced(self) -> list[LayerStatus]:
        """The layers that are on ACL."""
        return [row for row in self.rows if row.status == REPLACED]

    @property
    def others(self) -> list[LayerStatus]:
        """The layers that are not; each row's status says why."""
        return [row for row in self.rows if row.status != REPLACED]

    def __str__(self) -> str:
        cells = [("layer", "type", "status"), *((row.name or "(model)", row.kind, row.status) for row in self.rows)]
        name, kind = (max(len(row[i]) for row in cells) for i in (0, 1))
        lines = [f"{row[0]:{name}}  {row[1]:{kind}}  {row[2]}".rstrip() for row in cells]
        return "\n".join([*lines, f"{len(self.replaced)} of {len(self.rows)} linear layers are on ACL"])


def report(model: nn.Module) -> Report:
    """Returns what became of every linear layer of a model, in `convert`, `quantize` or `pt2e.lower`.

    What cannot be known is reported as that: layers below a compiled module, and in TorchScript.

    Args:
        model: Any module.

    Raises:
        TypeError: `model` is not a module.
    """
    rows = [LayerStatus(layer.names[0], kind_of(layer.module), _status(layer)) for layer in linear_layers(model)]
    seen = set()
    for name, module, above in walk(model):
        if module not in seen:
            seen.add(module)
            rows += _products(name, module)
            if isinstance(module, torch.jit.ScriptModule):
                rows += _of_script(name, module, above)
            elif isinstance(module, torch.fx.GraphModule):
                rows += _functions(f"{name}." if name else "", module)
    return Report(rows)


def kind_of(module: nn.Module) -> str:
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    return kind.removeprefix("torch.").replace("acl_qlinear.modules", "acl_qlinear")


def _status(layer: Layer) -> str:
    if isinstance(layer.module, PackedLinear) and not layer.is_compiled:
        return REPLACED
    is_float = isinstance(layer.module, nn.Linear) and library_of(layer.module) is None
    return obstacle(layer) or (_FP32 if is_float else _REPLACEABLE)


def _products(name: str, module: nn.Module) -> Iterator[LayerStatus]:
    """Matrix products of modules that are not linear layers."""
    if isinstance(module, nn.MultiheadAttention):
        for weight in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(module, weight, None) is not None:
                status = "a parameter of nn.MultiheadAttention, not a module"
                yield LayerStatus(f"{name}.{weight}".lstrip("."), kind_of(module), status)
    # Transformers', as GPT-2 has it.
    elif type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "weight"):
        yield LayerStatus(name, kind_of(module), "a linear layer with its weight transposed, not a torch.nn.Linear")


def _of_script(name: str, module: torch.jit.ScriptModule, above: tuple[nn.Module, ...]) -> Iterator[LayerStatus]:
    if "Linear" in module.original_name:
        yield LayerStatus(name, f"jit.{module.original_name}", _SCRIPT)
    elif not any(isinstance(parent, torch.jit.ScriptModule) for parent in above[:-1]):
        # A frozen module has only a graph.
        is_listed = any("Linear" in part.original_name for part in module.modules())
        if not is_listed and re.search(r"::\w*linear", str(getattr(module, "inlined_graph", ""))):
            yield LayerStatus(name, f"jit.{module.original_name}", _SCRIPT)


def _functions(prefix: str, module: torch.fx.GraphModule) -> Iterator[LayerStatus]:
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        name = schema.name if schema else getattr(node.target, "_qualified_op_name", "")
        if name in _FUNCTIONS:
            yield LayerStatus(prefix + node.name, name, "a function in a graph, not a module")
        elif name.startswith("acl_qlinear::linear"):
            yield LayerStatus(prefix + node.name, name, REPLACED)
