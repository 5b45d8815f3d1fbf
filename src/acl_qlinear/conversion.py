# SPDX-License-Identifier: MIT
"""From models that PyTorch quantized, or did not, to models with our layers; and what became of each layer."""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.ao.nn.quantized as nnq
from torch import Tensor, nn
from torch.ao.quantization import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver

from .modules import CalibratedLinear, DynamicLinear, Linear, PackedLinear

REPLACED = "replaced"
REPLACEABLE = "can be replaced: convert(model) has not been called"
_FP32 = "not quantized: acl_qlinear.quantize(model) makes it int8"
_SUBCLASS = "a subclass of torch.nn.Linear: what it is part of may use its weight directly"
_OTHER = "a quantized linear layer of another kind"
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)  # fmt: skip
# Linear layers that are functions, in the graphs of torch.fx and torch.export.
_FUNCTIONS = {"quantized::linear", "quantized::linear_relu", "quantized::linear_dynamic", "aten::linear"}


@dataclass(frozen=True)
class LayerStatus:
    """One linear layer of a model.

    Attributes:
        name: The layer's name in the model.
        kind: Its type.
        status: "replaced", or why it is not on ACL.
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


def convert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Replaces the int8 linear layers that torch.ao.quantization made, eager or FX, static or dynamic.

    `Linear` replaces torch.ao.nn.quantized.Linear and its fused relatives with ReLU, leaky ReLU and
    tanh. `DynamicLinear` replaces the dynamic ones. `report` says which layers were replaced, and why
    others were not.

    Args:
        model: What torch.ao.quantization returned.
        inplace: Whether to change `model` instead of a copy.

    Returns:
        A copy, or `model` itself when inplace (another object when the model is itself a layer).
    """
    if not inplace:
        model = copy.deepcopy(model)
    return _replace_all(model, _from_torch)


def quantize(
    model: nn.Module,
    calibrate: Callable[[nn.Module], object] | None = None,
    *,
    per_channel: bool = True,
    reduce_range: bool = False,
    observer: Callable[[], nn.Module] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Makes every torch.nn.Linear of a float model int8, between float inputs and outputs.

    Layers that calibration did not run stay as they are, with a warning that names them. `report`
    lists all layers.

    Args:
        model: A float32 or bfloat16 model.
        calibrate: None for dynamic quantization (`DynamicLinear`). For static (`CalibratedLinear`), a
            function that runs the model, which it is given, on typical inputs.
        per_channel: Whether each output feature has a weight scale, or all have one. Weights are
            symmetric.
        reduce_range: Whether activations have 7 bits; dynamic only.
        observer: Makes the observer of a layer's inputs, for qint8; static only. torch.ao's
            HistogramObserver by default.
        inplace: Whether to change `model` instead of a copy.

    Returns:
        A copy, or `model` itself when inplace (another object when the model is itself a layer).

    Raises:
        ValueError: An argument does not go with the others; or, naming the layer, `prepack` refuses
            its weight or bias. Then no layer has been replaced.
    """
    if calibrate is not None and reduce_range:
        raise ValueError("reduce_range is True, expected False with calibrate: it is for dynamic quantization")
    if calibrate is None and observer is not None:
        raise ValueError("observer is given without calibrate, expected both: dynamic quantization observes nothing")
    if not inplace:
        model = copy.deepcopy(model)
    if calibrate is None:

        def dynamic(module: nn.Module) -> nn.Module | None:
            if type(module) is not nn.Linear:
                return None
            return DynamicLinear(quantized_weight(module, per_channel), _bias(module), reduce_range)

        return _replace_all(model, dynamic)

    found = _observe(model, calibrate, observer or (lambda: HistogramObserver(dtype=torch.qint8)))

    def static(module: nn.Module) -> nn.Module | None:
        if module not in found:
            return None
        scale, zero_point = found[module]
        return CalibratedLinear(quantized_weight(module, per_channel), _bias(module), scale, zero_point)

    return _replace_all(model, static)


def report(model: nn.Module) -> Report:
    """Returns what became of every linear layer of a model, in `convert`, `quantize` or `pt2e.lower`."""
    rows = []
    for name, module in _linear_modules(model):
        kind = f"{type(module).__module__}.{type(module).__qualname__}".removeprefix("torch.")
        rows.append(LayerStatus(name, kind.replace("acl_qlinear.modules", "acl_qlinear"), _status(module)))
    for prefix, module in model.named_modules():
        if isinstance(module, torch.fx.GraphModule):
            rows += [LayerStatus(f"{prefix}.{row.name}" if prefix else row.name, *(row.kind, row.status))
                     for row in _functions(module)]  # fmt: skip
    return Report(rows)


def quantized_weight(module: nn.Linear, per_channel: bool) -> Tensor:
    """A float layer's weight as qint8 [N, K], symmetric, with torch.ao's observers."""
    weight = module.weight.detach().float()
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    observer = (PerChannelMinMaxObserver if per_channel else MinMaxObserver)(dtype=torch.qint8, qscheme=scheme)
    observer(weight)
    scale, zero_point = observer.calculate_qparams()
    if per_channel:
        return torch.quantize_per_channel(weight, scale, zero_point, 0, torch.qint8)
    return torch.quantize_per_tensor(weight, scale.item(), zero_point.item(), torch.qint8)


def _bias(module: nn.Linear) -> Tensor | None:
    return None if module.bias is None else module.bias.detach().float()


def _from_torch(module: nn.Module) -> nn.Module | None:
    """Our layer for one of PyTorch's quantized ones; None for everything else and where it cannot be."""
    for kind in (Linear, DynamicLinear):
        if type(module) in kind._of_torch:
            try:
                return kind.from_torch(module)
            except ValueError:
                return None
    return None


def _status(module: nn.Module) -> str:
    """What became of a linear layer: `REPLACED`, or why it is not."""
    if isinstance(module, PackedLinear):
        return REPLACED
    for kind in (Linear, DynamicLinear):
        if type(module) in kind._of_torch:
            try:
                kind.from_torch(module)
            except ValueError as error:
                return str(error)
            return REPLACEABLE
    if isinstance(module, nn.Linear):
        return _FP32 if type(module) is nn.Linear else _SUBCLASS
    return _OTHER


def _linear_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    kinds = (PackedLinear, nn.Linear, nnq.Linear)
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def _functions(module: torch.fx.GraphModule) -> Iterator[LayerStatus]:
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        name = schema.name if schema else getattr(node.target, "_qualified_op_name", "")
        if name in _FUNCTIONS:
            yield LayerStatus(node.name, name, "a function in a graph, not a module")
        elif name in ("acl_qlinear::linear_int8", "acl_qlinear::linear_dynamic"):
            yield LayerStatus(node.name, name, REPLACED)


def _replace_all(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Puts `replacement(module)` in the place of every module for which it is not None, or of none at all."""
    found: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        try:
            new = replacement(module)
        except ValueError as error:
            raise ValueError(f"layer {name or '(model)'}: {error}") from error
        if new is not None:
            new.train(module.training)
            for hooks in _HOOKS:
                setattr(new, hooks, getattr(module, hooks))
            found[module] = new
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in found:
                setattr(parent, name, found[child])
        # PyTorch's fast path for encoders takes the weights of its layers: it is for ReLU and
        # GELU, 1 and 2, and nested tensors are only for it.
        if isinstance(parent, nn.TransformerEncoderLayer) and isinstance(parent.linear1, PackedLinear):
            parent.activation_relu_or_gelu = 0
        elif isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False
    return found.get(model, model)


def _observe(
    model: nn.Module, calibrate: Callable[[nn.Module], object], make_observer: Callable[[], nn.Module]
) -> dict[nn.Module, tuple[float, int]]:
    """Scale and zero point of the inputs of every torch.nn.Linear that calibration runs."""
    names = {module: name for name, module in model.named_modules() if type(module) is nn.Linear}
    observers: dict[nn.Module, nn.Module] = {}
    handles = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module not in observers:
            observers[module] = make_observer()
        observers[module](args[0].detach().float())

    try:
        handles = [module.register_forward_pre_hook(watch) for module in names]
        with torch.no_grad():
            calibrate(model)
    finally:
        for handle in handles:
            handle.remove()
    if missed := [name for module, name in names.items() if module not in observers]:
        warnings.warn(f"calibrate() did not run {', '.join(missed)}: not quantized", stacklevel=3)
    result = {}
    for module, observer in observers.items():
        scale, zero_point = observer.calculate_qparams()
        result[module] = (scale.item(), zero_point.item())
    return result
