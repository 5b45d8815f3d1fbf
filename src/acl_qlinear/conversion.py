# SPDX-License-Identifier: MIT
"""From models that PyTorch quantized, or did not, to models with our layers."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ._defaults import plain_defaults
from ._libraries import Library
from .calibration import Input, check_observer, largest_magnitudes, observe
from .fusion import fuse_activations
from .inventory import Layer, Types, float32_bias, library_of, linear_layers, obstacle
from .modules import OF_TORCH, CalibratedLinear, DynamicLinear, PackedLinear, qint8_weight
from .observers import MeanSquaredError
from .ops import check_dynamic, check_flags
from .sums import take_sums

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)  # fmt: skip

# Options of dynamic quantization, and what they are without being given.
_DYNAMIC = {"reduce_range": False, "granularity": "tensor", "symmetric": False}

# 1 MB of float32.
_VALUES_AT_A_TIME = 2**18

Skip = str | Iterable[str] | Callable[[str, nn.Module], bool]


@plain_defaults()
def convert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Replaces the int8 linear layers that others made, static or dynamic.

    Of torch.ao.quantization, `Linear` replaces torch.ao.nn.quantized.Linear and its fused relatives with ReLU,
    leaky ReLU and tanh, and `DynamicLinear` the dynamic ones. Of torchao's `quantize_` and of compressed-tensors
    (llm-compressor's W8A8), `DynamicLinear` replaces layers with int8 activations per token, and
    `CalibratedLinear` those with one static scale. `report` says which layers were replaced, and why others
    were not. Sums of two quantized tensors are computed by `acl_qlinear.add`: `add` and `add_relu` of
    torch.ao.nn.quantized.QFunctional, eager, and of torch.ops.quantized in FX graphs.

    Args:
        model: What torch.ao.quantization returned, eager or FX; a model after torchao's `quantize_`; or one that
            transformers loaded from a checkpoint of compressed-tensors.
        inplace: Whether to change `model` instead of a copy. A copy needs the memory of a second model.

    Returns:
        A copy, or `model` itself when inplace (another object when the model is itself a layer).

    Raises:
        TypeError: `model` is not a module; inplace is neither True nor False.
        RuntimeError: The model cannot be copied; inplace=True does without.

    After an error, no layer has been replaced. For inplace=True, see `quantize`.
    """
    check_flags(inplace=inplace)
    target = model if inplace else _copy(model)
    # Copies of compiled modules are not compiled.
    makers = {layer.names: make for layer in linear_layers(target) if (make := _maker(layer))}
    # Of the originals: a copy's weights are packed again, maybe by another engine.
    converted = replaced(target, ((names, make(model.get_submodule(names[0]))) for names, make in makers.items()))
    take_sums(converted)
    return converted


def _maker(layer: Layer) -> Callable[[Any], PackedLinear] | None:
    """What makes the layer that replaces this one; None where nothing does."""
    kind = next((kind for kind, known in OF_TORCH.items() if type(layer.module) in known), None)
    make: Callable[[Any], PackedLinear] | None = getattr(kind, "from_torch", None)
    if library := library_of(layer.module):
        make = partial(_from_library, library)
    return None if make is None or obstacle(layer) else make


def quantize(
    model: nn.Module,
    calibrate: Callable[[nn.Module], object] | None = None,
    *,
    per_channel: bool = True,
    reduce_range: bool = False,
    granularity: str = "tensor",
    symmetric: bool = False,
    observer: Callable[[], Any] | None = None,
    smooth: float | None = None,
    types: Iterable[type[nn.Linear]] = (),
    skip: Skip = (),
    fuse: bool = False,
    inplace: bool = False,
) -> nn.Module:
    """Makes every torch.nn.Linear of a float model int8, between float inputs and outputs.

    A layer that cannot be replaced stays as it is. One warning names all of these, with the reasons.
    `report` lists all layers.

    Args:
        model: A float32, bfloat16 or float16 model.
        calibrate: None for dynamic quantization (`DynamicLinear`). For static (`CalibratedLinear`), a
            function that runs the model, which it is given, on typical inputs. Empty inputs do not
            count; a layer whose inputs were all zeros, or had NaN or infinity in them, stays.
        per_channel: Whether each output feature has a weight scale, or all have one. Weights are
            symmetric.
        reduce_range: Whether activations have 7 bits; dynamic, by tensor only.
        granularity: What shares a scale and a zero point of dynamic quantization: "tensor" or "row" (per token).
        symmetric: Whether zero points of activations are 0; by row only.
        observer: Makes the observer of a layer's inputs; static only. A class of `acl_qlinear.observers`,
            MeanSquaredError by default, or a function that makes one of torch.ao's, for qint8 and per tensor.
        smooth: None, or how much of the activations' outliers moves into the weights, above 0 and at most 1; static
            only. `calibrate` is called twice then. See `acl_qlinear.calibration.smoothing`.
        types: Subclasses of torch.nn.Linear to replace, too. Their forward has to do what
            torch.nn.Linear's does; it may cast.
        skip: Layers to leave alone: a name, several, with wildcards as in `fnmatch`; or a function of
            name and layer that returns True for them.
        fuse: Whether a layer also computes the activation function after it: ReLU, leaky ReLU, tanh, GELU or SiLU,
            in nn.Sequential, and in modules whose forward only calls one submodule after the other, as its source
            shows. Such a module's class becomes a subclass; layers and functions stay as they are. Where one of
            both has hooks, both are called.
        inplace: Whether to change `model` instead of a copy.

    Returns:
        A copy, or `model` itself when inplace (another object when the model is itself a layer).

    Raises:
        TypeError: `model` is not a module; `calibrate` or `observer` is not a function; `types` has something
            else than subclasses of torch.nn.Linear; an option is neither True nor False; `smooth` is not a number.
        ValueError: An argument does not go with the others; an observer of another kind; a name in
            `skip` that no linear layer has.
        RuntimeError: An observer failed; or the model cannot be copied, and inplace=True does without.

    After every error, no layer has been replaced. Only when memory runs out, or an interrupt comes, inplace=True
    leaves what has been replaced so far: it frees each layer's weight before the next one is packed.
    """
    check_flags(per_channel=per_channel, fuse=fuse, inplace=inplace)
    check_dynamic(granularity, reduce_range, symmetric, narrow_range=False)
    dynamic = {"reduce_range": reduce_range, "granularity": granularity, "symmetric": symmetric}
    for name, value in dynamic.items():
        if calibrate is not None and value != (default := _DYNAMIC[name]):
            raise ValueError(
                f"{name} is {value!r}, expected {default!r} with calibrate: it is for dynamic quantization"
            )
    if calibrate is not None and not callable(calibrate):
        raise TypeError(f"calibrate is a {type(calibrate).__name__}, expected a function that runs the model")
    for name, given in {"observer": observer, "smooth": smooth}.items():
        if calibrate is None and given is not None:
            raise ValueError(f"{name} is given without calibrate, expected both: dynamic quantization observes nothing")
    _check_smooth(smooth)
    types = _checked(types)
    make_observer = MeanSquaredError if observer is None else observer
    check_observer(make_observer)
    skipped = _skipped(_float_layers(model), skip)
    # Copies of compiled modules are not compiled.
    target = model if inplace else _copy(model)
    chosen, left, silent = _chosen(target, skipped, types)
    inputs: dict[str, Input] = {}
    if calibrate is not None:
        by_name: Any = {names[0]: target.get_submodule(names[0]) for names in chosen}
        inputs, unseen = observe(target, by_name, calibrate, make_observer, smooth)
        # What is left is to be the only one that keeps a layer in memory.
        del by_name
        # It may have changed the model.
        there, now_left, _ = _chosen(target, skipped, types)
        chosen, left = [names for names in chosen if names in there], left | unseen | now_left
    if named := [f"\n  {name or '(model)'}: {reason}" for name, reason in left.items() if name not in silent]:
        warnings.warn(f"acl_qlinear.quantize leaves linear layers as they are:{''.join(named)}", stacklevel=2)
    quantized = replaced(
        target,
        (
            (names, _quantized(target.get_submodule(names[0]), inputs.get(names[0]), per_channel, dynamic))
            for names in chosen
            if names[0] not in left
        ),
    )
    if fuse:
        fuse_activations(quantized)
    return quantized


def _chosen(
    model: nn.Module, skipped: set[tuple[str, ...]], types: Types
) -> tuple[list[tuple[str, ...]], dict[str, str], set[str]]:
    """The names of the layers to replace; why others are left; and those of the latter to be silent about."""
    layers = [layer for layer in _float_layers(model) if layer.names not in skipped]
    left = {layer.names[0]: reason for layer in layers if (reason := _of_library(layer) or obstacle(layer, types))}
    # Nobody can do anything about these, and `report` lists them.
    silent = {layer.names[0] for layer in layers if type(layer.module) is NonDynamicallyQuantizableLinear}
    return [layer.names for layer in layers if layer.names[0] not in left], left, silent


def _of_library(layer: Layer) -> str | None:
    library = library_of(layer.module)
    return f"{library.name} has quantized it: acl_qlinear.convert takes it over" if library else None


def _from_library(library: Library, module: nn.Linear) -> PackedLinear:
    layer = library.int8_layer(module)
    weight = qint8_weight(layer.weight, layer.scale, layer.zero_point)
    bias, shared = float32_bias(module), {"dtype": layer.dtype, "pre_scale": layer.pre_scale}
    if layer.static is not None:
        return CalibratedLinear(weight, bias, *layer.static, **shared)
    assert layer.dynamic is not None
    return DynamicLinear(weight, bias, **layer.dynamic, **shared)


@plain_defaults()
def quantized_weight(weight: Tensor, per_channel: bool, pre_scale: Tensor | None = None) -> Tensor:
    """A float weight, [N, K], as qint8, symmetric: with the scales of torch.ao's min-max observers.

    pre_scale: [K], what the weight is divided by first.
    """
    # Some rows at a time: no second weight is in memory.
    rows = max(1, _VALUES_AT_A_TIME // weight.shape[1])

    def parts() -> Iterator[Tensor]:
        for part in weight.detach().split(rows):
            yield part.float() if pre_scale is None else part.float() / pre_scale

    largest = torch.cat([largest_magnitudes(part, 1) for part in parts()])
    scale = ((largest if per_channel else largest.amax(0, keepdim=True)) / 127.5).clamp(min=torch.finfo().eps)
    zero_point = torch.zeros(len(scale), dtype=torch.int64)
    if per_channel:
        of_parts = zip(parts(), scale.split(rows), zero_point.split(rows), strict=True)
        int8 = [torch.quantize_per_channel(*part, 0, torch.qint8).int_repr() for part in of_parts]
    else:
        int8 = [torch.quantize_per_tensor(part, scale.item(), 0, torch.qint8).int_repr() for part in parts()]
    return qint8_weight(torch.cat(int8), scale.double(), zero_point)


@plain_defaults()
def _quantized(module: nn.Module, input: Input | None, per_channel: bool, dynamic: dict[str, Any]) -> PackedLinear:
    """A float layer as int8: static where its input is given."""
    assert isinstance(module, nn.Linear)
    dtype, bias = module.weight.dtype, float32_bias(module)
    if input is None:
        return DynamicLinear(quantized_weight(module.weight, per_channel), bias, dtype=dtype, **dynamic)
    weight = quantized_weight(module.weight, per_channel, input.pre_scale)
    return CalibratedLinear(weight, bias, input.scale, input.zero_point, dtype=dtype, pre_scale=input.pre_scale)


def _check_smooth(smooth: float | None) -> None:
    if smooth is None:
        return
    if isinstance(smooth, bool) or not isinstance(smooth, Real):
        raise TypeError(f"smooth is {smooth!r}, expected a number above 0 and at most 1, or None")
    if not 0 < smooth <= 1:
        raise ValueError(f"smooth is {smooth}, expected a number above 0 and at most 1")


def _checked(types: Iterable[type[nn.Linear]]) -> Types:
    types = tuple(types)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, nn.Linear)):
            raise TypeError(f"types has {kind!r}, expected subclasses of torch.nn.Linear")
    return types


def _float_layers(model: nn.Module) -> list[Layer]:
    return [layer for layer in linear_layers(model) if isinstance(layer.module, nn.Linear)]


def _skipped(layers: list[Layer], skip: Skip) -> set[tuple[str, ...]]:
    """The names of the layers to leave alone."""
    if callable(skip):
        return {layer.names for layer in layers if any(skip(name, layer.module) for name in layer.names)}
    skipped = set()
    for pattern in [skip] if isinstance(skip, str) else skip:
        matching = {layer.names for layer in layers if any(fnmatchcase(name, pattern) for name in layer.names)}
        if not matching:
            names = ", ".join(name for layer in layers for name in layer.names)
            raise ValueError(f"skip has {pattern!r}, expected the name of a linear layer, or wildcards: {names}")
        skipped |= matching
    return skipped


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        name, _ = _not_copied("", model)
        raise RuntimeError(
            f"{name or 'the model'} cannot be copied, expected inplace=True, which changes the model itself: {error}"
        ) from error


def _not_copied(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """The innermost module that copy.deepcopy fails for, below one that it fails for."""
    for child_name, child in module.named_children():
        try:
            copy.deepcopy(child)
        except Exception:
            return _not_copied(f"{name}.{child_name}" if name else child_name, child)
    return name, module


def replaced(model: nn.Module, layers: Iterable[tuple[tuple[str, ...], PackedLinear]]) -> nn.Module:
    """Puts layers in the place of those that have these names; returns `model`, or the layer in its place.

    One after the other, as an iterator makes them: so no more than one is in memory beside the one that it replaces.
    """
    new: dict[tuple[str, ...], PackedLinear] = {}
    for names, layer in layers:
        _take_over(layer, model.get_submodule(names[0]))
        for name in names:
            parent, _, child = name.rpartition(".")
            if name:
                setattr(model.get_submodule(parent), child, layer)
        new[names] = layer
    # PyTorch's fast path for encoders takes the weights of its layers: it is for ReLU and GELU, 1
    # and 2, and nested tensors are only for it.
    ours = set(new.values())
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and not ours.isdisjoint(module.children()):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and not ours.isdisjoint(module.modules()):
            module.use_nested_tensor = False
    return next((layer for names, layer in new.items() if "" in names), model)


def _take_over(layer: PackedLinear, old: nn.Module) -> None:
    """Gives a layer what others have attached to the one that it replaces."""
    layer.train(old.training)
    for hooks in _HOOKS:
        setattr(layer, hooks, getattr(old, hooks))
    if isinstance(old, nn.Linear):
        library = library_of(old)
        for name in vars(old).keys() - vars(layer).keys():
            # A method of the old layer's, such as torchao's extra_repr, is about that layer, and would keep it.
            # So is what compressed-tensors keeps there: it would decompress the new layer.
            value = getattr(old, name)
            is_theirs = getattr(value, "__self__", None) is old or (library and library.has(type(value).__module__))
            # Nor may it hide a method of ours.
            if not is_theirs and not hasattr(type(layer), name):
                setattr(layer, name, value)
