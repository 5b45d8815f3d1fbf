# SPDX-License-Identifier: MIT
"""Models in files with their packed weights, which are mapped into memory and not read.

A file is one of torch.save, whose tensors begin at multiples of 64 bytes, as packed weights do. Pages that nobody
writes to are the page cache's: all processes share them.
"""

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import replaced
from .fusion import fuse_activations, is_fused
from .inventory import is_linear, linear_layers
from .modules import CalibratedLinear, DynamicLinear, Linear, PackedLinear, without_layers
from .ops import kernel_name
from .sums import take_sums

_FORMAT = "acl_qlinear packed model 1"
_KINDS = {kind.__name__: kind for kind in (Linear, DynamicLinear, CalibratedLinear)}


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Saves a model with its packed weights, for `load_packed`.

    The file is for CPUs like this one, and for this version of acl_qlinear. A state_dict is for every CPU.

    Args:
        model: From `quantize` or `convert`.
        path: The file. One that is there is replaced when the new one is complete.

    Raises:
        OSError: The file cannot be written.
        TypeError: `model` is not a module.
        ValueError: The model has no int8 layer of ours, or one that is not its own: in a list, below
            torch.compile, on the meta device; or its state has objects that torch.load refuses (weights_only).
    """
    layers = {}
    for layer in linear_layers(model):
        if isinstance(layer.module, PackedLinear):
            reason = _obstacle(layer.module, layer.is_compiled, layer.place)
            if reason:
                raise ValueError(f"layer {layer.names[0] or '(model)'} cannot be saved packed: {reason}")
            layers[layer.names] = (type(layer.module).__name__, layer.module.packed_state())
    if not layers:
        raise ValueError("model has no int8 layer, expected one from acl_qlinear.quantize or acl_qlinear.convert")
    with without_layers():
        state = dict(model.state_dict())
    content = {
        "format": _FORMAT,
        "layers": [(names, *saved) for names, saved in layers.items()],
        "state": state,
        "buffers": dict(_buffers_without_state(model)),
        "is_fused": any(map(is_fused, model.modules())),
    }
    with _written_aside(Path(path)) as aside:
        torch.save(content, aside)
        try:
            torch.load(aside, mmap=True, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"model's state cannot be loaded again, expected tensors and numbers in it: {error}"
            ) from error


def load_packed(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Returns the model that `save_packed` saved. Its tensors are mapped from the file: nothing is read or packed.

    Processes that load the same file share its memory. The file must not be changed while it is in use; replacing it
    is fine, as `save_packed` does.

    Args:
        model: A model of the same structure, for which its values are not used: it may be on the meta device, float
            or quantized. It is not changed.
        path: The file.

    Returns:
        Another model, in `model`'s mode (training or not).

    Raises:
        OSError: The file cannot be read.
        TypeError: `model` is not a module.
        ValueError: `path` is not such a file, it is for another kind of CPU or version, or the model has another
            structure.
    """
    linear_layers(model)
    content = _read(Path(path))
    new = _structure_of(model)
    layers = []
    for names, kind, state in content["layers"]:
        layer = _KINDS[kind].from_packed_state(state)
        _check(new, names, layer, path)
        layers.append((names, layer))
    _check_same_layers(new, {name for names, _ in layers for name in names}, path)
    shared = _shared(new)
    new = replaced(new, layers)
    try:
        with without_layers():
            new.load_state_dict(content["state"], assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} has another model than the given one: {error}") from error
    for name, value in content["buffers"].items():
        _set_buffer(new, name, value, path)
    _share(shared)
    _check_complete(new, path)
    take_sums(new)
    if content["is_fused"]:
        fuse_activations(new)
    return new


def _obstacle(layer: PackedLinear, is_compiled: bool, place: str | None) -> str | None:
    if is_compiled:
        return "it is below a compiled module: save before torch.compile"
    if place is not None:
        return f"it is kept in {place}, which is not a submodule: use nn.ModuleList or nn.ModuleDict"
    return "it is on the meta device, and has no values" if layer.packed.is_meta else None


def _buffers_without_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that no state_dict has."""
    for name, module in model.named_modules(remove_duplicate=False):
        for attribute in module._non_persistent_buffers_set:
            if (value := module._buffers.get(attribute)) is not None:
                yield f"{name}.{attribute}" if name else attribute, value


@contextlib.contextmanager
def _written_aside(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which it becomes when nothing failed."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        yield aside
        aside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    expected = "expected a file that acl_qlinear.save_packed of this version wrote"
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"path is {str(path)!r}, {expected}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"path is {str(path)!r}, {expected}")
    return content


def _structure_of(model: nn.Module) -> nn.Module:
    """A copy of a model with tensors on the meta device: it takes no memory."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if isinstance(module, PackedLinear):
            tensors.append(module.packed)
        for value in tensors:
            if value is not None and id(value) not in memo:
                meta = torch.empty(value.shape, dtype=value.dtype, device="meta")
                memo[id(value)] = nn.Parameter(meta, value.requires_grad) if isinstance(value, nn.Parameter) else meta
    return copy.deepcopy(model, memo)


def _check(model: nn.Module, names: tuple[str, ...], layer: PackedLinear, path: Any) -> None:
    """Raises ValueError where a layer of the file cannot be used, or the model has another one in its place."""
    for name in names:
        try:
            old: Any = model.get_submodule(name)
        except AttributeError:
            old = None
        if old is None or not is_linear(old):
            raise ValueError(f"{path} has a linear layer {name!r}, which model does not have: it is another model's")
        sizes, expected = (layer.in_features, layer.out_features), (old.in_features, old.out_features)
        if sizes != expected:
            raise ValueError(
                f"{path} has K, N = {sizes} for layer {name!r}, model has {expected}: it is another model's"
            )
    try:
        kernel_name(layer.packed)
    except ValueError as error:
        reason = str(error).partition("packed is not usable: ")[2] or str(error)
        raise ValueError(
            f"{path} cannot be used on this CPU, expected one that acl_qlinear.save_packed wrote on a CPU like it: "
            f"in layer {names[0]!r}, {reason}"
        ) from error


def _check_same_layers(model: nn.Module, names: set[str], path: Any) -> None:
    for layer in linear_layers(model):
        if isinstance(layer.module, PackedLinear) and names.isdisjoint(layer.names):
            raise ValueError(
                f"{path} has a float layer {layer.names[0]!r}, model has it as int8: expected the float model, or one "
                "that was quantized in the same way"
            )


def _set_buffer(model: nn.Module, name: str, value: Tensor, path: Any) -> None:
    owner, _, attribute = name.rpartition(".")
    buffers = dict(model.named_modules(remove_duplicate=False)).get(owner, nn.Module())._buffers
    if attribute not in buffers:
        raise ValueError(f"{path} has a buffer {name!r}, which model does not have: it is another model's")
    buffers[attribute] = value


Place = tuple[dict[str, Any], str]


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


def _check_complete(model: nn.Module, path: Any) -> None:
    for name, module in model.named_modules():
        for attribute, value in {**vars(module), **module._parameters, **module._buffers}.items():
            if isinstance(value, Tensor) and value.is_meta:
                raise ValueError(
                    f"{path} has no values for {f'{name}.{attribute}'.lstrip('.')!r}: it is another model's, or this "
                    "is neither a parameter nor a buffer, and was made on the meta device"
                )
