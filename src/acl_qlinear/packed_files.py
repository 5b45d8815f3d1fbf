# SPDX-License-Identifier: MIT
"""Models in files with their packed weights, which are mapped into memory and not read.

A file is one of torch.save, whose tensors begin at multiples of 64 bytes, as packed weights do. Pages that nobody
writes to are the page cache's: all processes share them.
"""

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import replaced
from .fusion import fuse_activations, is_fused
from .inventory import attributes, kept_in, linear_layers, values_in
from .modules import CalibratedLinear, DynamicLinear, Linear, PackedLinear, without_layers
from .ops import kernel_name
from .sums import take_sums

_FORMAT = "acl_qlinear packed model 1"
_KINDS = {kind.__name__: kind for kind in (Linear, DynamicLinear, CalibratedLinear)}
Names = tuple[str, ...]
Place = tuple[dict[str, Any], str]


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Saves a model with its packed weights, for `load_packed`.

    The file is for CPUs like this one, and for this version of acl_qlinear. A state_dict is for every CPU. Of what is
    in no state_dict, only buffers are saved. Graphs of `pt2e.lower` and TorchScript have packed weights in what
    PyTorch saves of them.

    Args:
        model: From `quantize` or `convert`.
        path: The file. One that is there is replaced when the new one is complete.

    Raises:
        OSError: The file cannot be written.
        TypeError: `model` is not a module.
        ValueError: The model has no int8 layer of ours; one that is in a list, below torch.compile, of a subclass, or
            has another forward; a tensor on the meta device; or something in its state that torch.load refuses
            (weights_only).
    """
    layers = []
    for layer in linear_layers(model):
        if isinstance(layer.module, PackedLinear):
            if reason := _obstacle(layer.module, layer.is_compiled, layer.place):
                raise ValueError(f"layer {layer.names[0] or '(model)'} cannot be saved packed: {reason}")
            layers.append((layer.names, type(layer.module).__name__, layer.module.packed_state()))
    if not layers:
        raise ValueError("model has no int8 layer, expected one from acl_qlinear.quantize or acl_qlinear.convert")
    with without_layers():
        state = dict(model.state_dict())
    buffers = {name: value for name, value in model.named_buffers(remove_duplicate=False) if name not in state}
    for name, value in (state | buffers).items():
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(f"{name} is on the meta device, and has no values to save")
    content = {
        "format": _FORMAT,
        "layers": layers,
        "state": state,
        "buffers": buffers,
        "is_fused": any(map(is_fused, model.modules())),
    }
    # Where a link leads to.
    with _written_aside(Path(os.path.realpath(path))) as aside:
        try:
            torch.save(content, aside)
            # When the disk is full, torch.save may write less without a word.
            torch.load(aside, mmap=True, weights_only=True)
        except OSError:
            raise
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        except Exception as error:
            message = f"model's state cannot be loaded again, expected tensors and numbers in it: {error}"
            raise ValueError(message) from error


def load_packed(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Returns the model that `save_packed` saved. Its tensors are mapped from the file: nothing is read or packed.

    Processes that load the same file share its memory. The file must not be changed while it is in use; replacing it
    is fine, as `save_packed` does.

    Args:
        model: A model of the same structure, float or quantized, on the CPU or on the meta device. It is not changed,
            and the values of its parameters and buffers are not used. Everything else is copied from it.
        path: The file.

    Returns:
        Another model, in `model`'s mode (training or not).

    Raises:
        OSError: The file cannot be read.
        TypeError: `model` is not a module.
        ValueError: `path` is not such a file, or it is for another kind of CPU or another version; the model has
            another structure, or cannot be copied.
    """
    # Raises TypeError, before anything is read.
    linear_layers(model)
    content = _read(Path(path))
    new = _structure_of(model)
    saved = {names: (kind, state) for names, kind, state in content["layers"]}
    places = _places_of(saved, new, path)
    shared = _shared(new)
    layers = {names: _layer_for(places[names], names[0], *saved[names], path) for names in saved}
    new = replaced(new, layers.items())
    try:
        with without_layers():
            new.load_state_dict(content["state"], assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} has another model than the given one: {error}") from error
    modules = dict(new.named_modules(remove_duplicate=False))
    for name, value in content["buffers"].items():
        owner, _, attribute = name.rpartition(".")
        if owner not in modules or attribute not in modules[owner]._buffers:
            raise ValueError(f"{path} has a buffer {name!r}, which model does not have: it is another model's")
        modules[owner]._buffers[attribute] = value
    _share(shared)
    _check_loaded(new, content["state"] | content["buffers"], path)
    take_sums(new)
    if content["is_fused"]:
        fuse_activations(new)
    return new


def _obstacle(layer: PackedLinear, is_compiled: bool, place: str | None) -> str | None:
    if is_compiled:
        return "it is below a compiled module: save before torch.compile"
    if place is not None:
        return f"it is {kept_in(place)}"
    if type(layer) not in _KINDS.values():
        return f"it is a {type(layer).__name__}, expected {', '.join(_KINDS)}"
    if "forward" in vars(layer):
        return "its forward was replaced by another function"
    return "it is on the meta device, and has no values" if layer.packed.is_meta else None


@contextlib.contextmanager
def _written_aside(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which it becomes when nothing failed."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        yield aside
        aside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    expected = f"path is {str(path)!r}, expected a file that acl_qlinear.save_packed of this version wrote"
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{expected}: {error}") from error
    types = {"format": str, "layers": list, "state": dict, "buffers": dict, "is_fused": bool}
    if not isinstance(content, dict) or content.get("format") != _FORMAT or content.keys() != types.keys():
        raise ValueError(expected)
    is_whole = all(isinstance(content[key], kind) for key, kind in types.items()) and all(
        isinstance(layer, tuple)
        and [type(part) for part in layer] == [tuple, str, dict]
        and layer[0]
        and all(isinstance(name, str) for name in layer[0])
        and layer[1] in _KINDS
        for layer in content["layers"]
    )
    if not is_whole:
        raise ValueError(f"{expected}: it has been changed")
    return content


def _structure_of(model: nn.Module) -> nn.Module:
    """A copy of a model with parameters and buffers on the meta device, where they take no memory."""
    memo: dict[int, Any] = {}
    try:
        for module in model.modules():
            if isinstance(module, PackedLinear):
                memo[id(module.packed)] = module.packed.to("meta")
            for value in attributes(module).values():
                # What a hook has computed; deepcopy takes none that a gradient could go through.
                if isinstance(value, Tensor) and not value.is_leaf:
                    memo[id(value)] = value.detach().clone()
            for value in (*module._parameters.values(), *module._buffers.values()):
                if value is not None and id(value) not in memo:
                    meta = torch.empty(value.shape, dtype=value.dtype, device="meta")
                    is_parameter = isinstance(value, nn.Parameter)
                    memo[id(value)] = nn.Parameter(meta, value.requires_grad) if is_parameter else meta
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(f"model cannot be copied, expected one as it was before saving: {error}") from error


def _places_of(saved: Iterable[Names], model: nn.Module, path: Any) -> dict[Names, nn.Module]:
    """The layers of a model that are to become those of the file.

    Raises ValueError where it does not have them, has one in several places that the file has several for, or has one
    as int8 that is float in the file.
    """
    layers = linear_layers(model)
    by_name = {name: layer for layer in layers if layer.place is None for name in layer.names}
    for names in saved:
        for name in names:
            if name not in by_name:
                raise ValueError(
                    f"{path} has a linear layer {name!r}, which model does not have: it is another model's"
                )
            if not set(by_name[name].names) <= set(names):
                raise ValueError(f"{path} has a layer {name!r} of its own, model shares it: it is another model's")
    known = {name for names in saved for name in names}
    for layer in layers:
        if isinstance(layer.module, PackedLinear) and known.isdisjoint(layer.names):
            raise ValueError(
                f"{path} has a float layer {layer.names[0]!r}, model has it as int8: expected the float model, or one "
                "that was quantized in the same way"
            )
    return {names: by_name[names[0]].module for names in saved}


def _layer_for(place: Any, name: str, kind: str, state: dict[str, Any], path: Any) -> PackedLinear:
    """A layer of the file, for the place of another one. Raises ValueError where it cannot be used, or not there."""
    if "forward" in vars(place):
        raise ValueError(f"model's layer {name!r} has another forward, expected the one of its class")
    expected = (place.in_features, place.out_features)
    # What else there is in one of ours is to stay: buffers, submodules, hooks.
    layer = place
    if type(place) is not _KINDS[kind]:
        layer = _KINDS[kind].__new__(_KINDS[kind])
        nn.Module.__init__(layer)
    try:
        layer.set_packed_state(state)
    except ValueError as error:
        raise ValueError(f"{path} has been changed: in layer {name!r}, {error}") from error
    try:
        kernel_name(layer.packed)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("packed is not usable: ")[2] or str(error)
        raise ValueError(
            f"{path} cannot be used on this CPU, expected one that acl_qlinear.save_packed wrote on a CPU like it: "
            f"in layer {name!r}, {reason}"
        ) from error
    if (sizes := (layer.in_features, layer.out_features)) != expected:
        raise ValueError(f"{path} has K, N = {sizes} for layer {name!r}, model has {expected}: it is another model's")
    return layer


def _shared(model: nn.Module) -> list[list[Place]]:
    """Where the same tensor is kept, of each that is in several places: tied parameters, attributes beside buffers."""
    places: dict[int, list[Place]] = {}
    for module in model.modules():
        for names in (module._parameters, module._buffers, vars(module)):
            for name, value in names.items():
                if isinstance(value, Tensor):
                    places.setdefault(id(value), []).append((names, name))
    return [group for group in places.values() if len(group) > 1]


def _share(groups: list[list[Place]]) -> None:
    """Puts what has been loaded into one of the places into all of them."""
    for group in groups:
        value = next((names[name] for names, name in group if not names[name].is_meta), None)
        for names, name in group if value is not None else []:
            names[name] = value


def _check_loaded(model: nn.Module, state: dict[str, Any], path: Any) -> None:
    """Raises ValueError where a model is not what was saved, since it shares what the file has apart, or has more."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, value in tensors:
        saved = state.get(name)
        # Those that PyTorch's state_dict has as they are.
        if type(saved) is not Tensor or saved.layout != torch.strided or not saved.numel():
            continue
        if value.data_ptr() != saved.data_ptr():
            raise ValueError(f"{path} has values of its own for {name!r}, model shares them: it is another model's")
    of_attributes = [
        found
        for name, module in model.named_modules()
        for attribute, value in attributes(module).items()
        for found in values_in(value, Tensor, f"{name}.{attribute}" if name else attribute)
    ]
    for name, value in tensors + of_attributes:
        if value.is_meta:
            raise ValueError(
                f"{path} has no values for {name!r}: it is another model's, or this is neither a parameter nor a "
                "buffer, and was made on the meta device"
            )
