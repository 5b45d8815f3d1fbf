# SPDX-License-Identifier: MIT
"""The linear layers of a model, and what keeps each of them from being replaced."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.ao.nn.quantized as nnq
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from . import _compressed_tensors, _torchao
from ._defaults import plain_defaults
from ._libraries import Library
from .modules import OF_TORCH, PackedLinear, in_range
from .ops import FLOATS, prepack_int8

Types = tuple[type[nn.Linear], ...]
Kind = TypeVar("Kind")

_LIBRARIES = (_torchao.LIBRARY, _compressed_tensors.LIBRARY)

_COMPILED = "unknown: below a compiled module, whose graphs may hold another layer; quantize before torch.compile"
_OTHER = "a quantized linear layer of another kind"
_IN_ATTENTION = "part of nn.MultiheadAttention, which uses its weight directly"
# Parameters and buffers by which one can tell what computes a weight on each call, and what ends that.
_COMPUTED = {
    "_mask": "torch.nn.utils.prune.remove(layer, {name!r})",
    "_g": "torch.nn.utils.remove_weight_norm(layer)",
    "_u": "torch.nn.utils.remove_spectral_norm(layer)",
}
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class Layer(NamedTuple):
    """A linear layer of any kind.

    Attributes:
        names: Its names in the model.
        module: The layer.
        is_compiled: Whether it is below a compiled module.
        place: The attribute, not a submodule, that it is kept in; else None.
    """

    names: tuple[str, ...]
    module: nn.Module
    is_compiled: bool
    place: str | None


def linear_layers(model: nn.Module) -> list[Layer]:
    """Every linear layer of a model once: float and quantized, PyTorch's and ours.

    Raises TypeError where `model` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    places = _places(model)
    names: dict[nn.Module, list[str]] = {}
    compiled = set()
    for name, module, above in walk(model):
        if is_linear(module):
            names.setdefault(module, []).append(name)
            if any(_is_compiled(parent) for parent in above):
                compiled.add(module)
    for module, place in places.items():
        names.setdefault(module, [place])
    return [Layer(tuple(all_), module, module in compiled, places.get(module)) for module, all_ in names.items()]


@plain_defaults()
def obstacle(layer: Layer, types: Types = ()) -> str | None:
    """Why a layer of PyTorch's is left as it is, as far as it shows before anything runs; else None.

    Nothing large is packed to find out.

    Args:
        layer: A float or quantized one.
        types: Subclasses of torch.nn.Linear that compute what it computes.
    """
    module = layer.module
    if layer.is_compiled:
        return _COMPILED
    if layer.place is not None:
        return kept_in(layer.place)
    library = library_of(module)
    if "forward" in vars(module) and not (library and library.has(_defining_module(module.forward))):
        return "its forward was replaced by another function: quantize before that"
    if isinstance(module, nn.Linear):
        if library is not None:
            return _of_library(module, library)
        return (
            _of_structure(module, types) or _of_dtype(module.weight.dtype) or _of_devices(module) or _of_values(module)
        )
    if any(type(module) in known for known in OF_TORCH.values()):
        return _of_quantized(module)
    return _OTHER


def kept_in(place: str) -> str:
    """What is wrong with a layer that is kept in a place of its own."""
    return f"kept in {place}, which is not a submodule: use nn.ModuleList or nn.ModuleDict"


def library_of(module: nn.Module) -> Library | None:
    """The library other than PyTorch that quantized a linear layer, if one did."""
    if not isinstance(module, nn.Linear):
        return None
    return next((library for library in _LIBRARIES if library.is_theirs(module)), None)


def walk(
    module: nn.Module, name: str = "", above: tuple[nn.Module, ...] = ()
) -> Iterator[tuple[str, nn.Module, tuple[nn.Module, ...]]]:
    """A model's modules under all of their names, each with the modules from the model to itself."""
    if module in above:
        return
    above = (*above, module)
    yield name, module, above
    for child_name, child in module._modules.items():
        if child is not None:
            yield from walk(child, f"{name}.{child_name}" if name else child_name, above)


def float32_bias(module: nn.Linear) -> Tensor | None:
    """A float layer's bias as `prepack` takes it."""
    return None if module.bias is None else module.bias.detach().float()


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, (PackedLinear, nn.Linear, nnq.Linear))


def _is_compiled(module: nn.Module) -> bool:
    # By the name of its part, since asking for torch.compile's class would import the compiler.
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None


def _places(model: nn.Module) -> dict[nn.Module, str]:
    """Linear layers in lists, tuples, dicts and plain attributes of modules, where nothing replaces them."""
    known = dict.fromkeys(model.modules(), "")
    places: dict[nn.Module, str] = {}
    waiting = list(model.named_modules())
    while waiting:
        name, module = waiting.pop()
        for attribute, value in attributes(module).items():
            for place, found in values_in(value, nn.Module, f"{name}.{attribute}" if name else attribute):
                # What is below one of the model's modules is replaced there.
                new = [("", found)] if found in known else list(found.named_modules(prefix=""))
                for below, part in new:
                    part_place = f"{place}.{below}" if below else place
                    if is_linear(part):
                        places.setdefault(part, part_place)
                    if part not in known:
                        known[part] = part_place
                        waiting.append((part_place, part))
    return places


def attributes(module: nn.Module) -> dict[str, Any]:
    """What is kept in a module besides its submodules, parameters, buffers and hooks."""
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def values_in(value: Any, kind: type[Kind], place: str, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Kind]]:
    """Values of a kind in lists, tuples and dicts, each with its place; or the value itself."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, kind):
        yield place, value
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    if id(value) not in above:
        for key, item in items:
            yield from values_in(item, kind, f"{place}[{key!r}]", (*above, id(value)))


def _defining_module(function: Any) -> str:
    # Not the function's __module__, which functools.wraps takes from what it wraps.
    return str(getattr(function, "__globals__", {}).get("__name__", ""))


def _of_structure(module: nn.Linear, types: Types, own: frozenset[str] = frozenset()) -> str | None:
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)
        return f"torch.nn.utils.parametrize computes its {names}: remove_parametrizations makes that permanent"
    if type(module) is NonDynamicallyQuantizableLinear and type(module) not in types:
        return f"a subclass of torch.nn.Linear: {_IN_ATTENTION}"
    if type(module) is not nn.Linear and type(module) not in types:
        return (
            "a subclass of torch.nn.Linear: if its forward does what torch.nn.Linear's does, "
            f"quantize(model, types=({type(module).__name__},)) takes it"
        )
    for name in ("weight", "bias"):
        if name not in module._parameters:
            state = {**module._parameters, **module._buffers}
            fix = next((fix for suffix, fix in _COMPUTED.items() if name + suffix in state), "the float layer's own")
            return f"its {name} is computed on each call: make it permanent with {fix.format(name=name)}"
        value = module._parameters[name]
        if value is not None and type(value) is not nn.Parameter and not (name == "weight" and library_of(module)):
            return f"its {name} is a {type(value).__name__}, expected a torch.nn.Parameter"
    return _more_than(module, {"weight", "bias", *own})


def _more_than(module: nn.Module, own: set[str]) -> str | None:
    """What a layer has that none of ours would keep."""
    more = (module._parameters.keys() | module._buffers.keys() | module._modules.keys()) - own
    return f"it has {', '.join(sorted(more))}, expected nothing besides weight and bias" if more else None


def _of_dtype(dtype: torch.dtype) -> str | None:
    if dtype not in FLOATS:
        return f"its weight is {dtype}, expected torch.float32, torch.bfloat16 or torch.float16"
    return None


def _of_devices(module: nn.Linear) -> str | None:
    for name, value in module._parameters.items():
        if value is not None and value.device.type != "cpu":
            return f"its {name} is on {value.device}, expected cpu"
    return None


def _of_values(module: nn.Linear) -> str | None:
    weight = module.weight.detach()
    refusal = _refusal(weight.shape, torch.ones(1), None, float32_bias(module))
    # isfinite() of all values would take a second weight's memory.
    if refusal is None and not torch.stack(weight.aminmax()).isfinite().all():
        n, k = weight.isfinite().logical_not().nonzero()[0].tolist()
        return f"weight[{n}, {k}] is {weight[n, k].item()}, expected a finite number"
    return refusal


def _of_library(module: nn.Linear, library: Library) -> str | None:
    kind = type(module)
    if kind is not nn.Linear and not library.has(kind.__module__):
        return f"a subclass of torch.nn.Linear that {library.name} quantized: make it a torch.nn.Linear before that"
    if (refusal := _of_devices(module)) is not None:
        return refusal
    try:
        layer = library.int8_layer(module)
    except ValueError as error:
        return str(error)
    if (refusal := _of_structure(module, (kind,), library.own) or _of_dtype(layer.dtype)) is not None:
        return refusal
    return _refusal(layer.weight.shape, layer.scale, layer.zero_point, float32_bias(module), layer.pre_scale)


def _of_quantized(module: nn.Module) -> str | None:
    if (refusal := _more_than(module, {"_packed_params"})) is not None:
        return refusal
    if (dtype := getattr(module._packed_params, "dtype", torch.qint8)) != torch.qint8:
        return f"module's weight is {dtype}, expected torch.qint8"
    try:
        in_range("scale", getattr(module, "scale", 1.0))
    except ValueError as error:
        return f"its output {error}"
    weight, bias = module.weight(), module.bias()
    if weight.qscheme() == torch.per_tensor_affine:
        scale, zero_point = torch.tensor([weight.q_scale()], dtype=torch.float64), torch.tensor([weight.q_zero_point()])
    else:
        scale, zero_point = weight.q_per_channel_scales(), weight.q_per_channel_zero_points().long()
    return _refusal(weight.shape, scale, zero_point, None if bias is None else bias.detach())


def _refusal(
    shape: torch.Size, scale: Tensor, zero_point: Tensor | None, bias: Tensor | None, pre_scale: Tensor | None = None
) -> str | None:
    """What `prepack` has against a weight: asked for one row and for one column of it."""
    N, K = shape
    any_zero_point = None if zero_point is None else zero_point.ne(0).any().long().reshape(1)
    try:
        prepack_int8(torch.zeros(min(N, 1), K, dtype=torch.int8), torch.ones(1), any_zero_point, None, pre_scale)
        prepack_int8(torch.zeros(N, 1, dtype=torch.int8), scale, zero_point, bias)
    except (TypeError, ValueError) as error:
        return str(error).removeprefix("acl_qlinear::prepack_int8: ")
    return None
