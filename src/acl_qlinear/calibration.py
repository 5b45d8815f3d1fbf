# SPDX-License-Identifier: MIT
"""The ranges of layers' inputs, from a run on typical ones."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ._defaults import plain_defaults
from .modules import in_range

_SCHEMES = (torch.per_tensor_affine, torch.per_tensor_symmetric)

MakeObserver = Callable[[], nn.Module]


@plain_defaults()
def check_observer(make_observer: MakeObserver) -> None:
    """Checks what makes observers.

    Raises:
        TypeError: It is an observer itself, which all layers would share.
        ValueError: A layer's input cannot be quantized as its observers say.
    """
    if isinstance(make_observer, nn.Module):
        kind = type(make_observer).__name__
        raise TypeError(f"observer is a {kind}, expected a function that makes one: lambda: {kind}(…)")
    observer = make_observer()
    dtype, scheme = getattr(observer, "dtype", None), getattr(observer, "qscheme", None)
    if dtype != torch.qint8:
        raise ValueError(f"observer is for {dtype}, expected torch.qint8: make it with dtype=torch.qint8")
    if scheme not in _SCHEMES:
        raise ValueError(f"observer is for {scheme}, expected {' or '.join(map(str, _SCHEMES))}")


class _Input:
    """What calibration has seen of one layer's input."""

    def __init__(self, name: str, observer: nn.Module) -> None:
        self.name, self.observer = name, observer
        self.obstacle: str | None = "calibrate() did not run it, or with empty inputs only"
        self._is_finite, self._is_zero = True, True

    @plain_defaults()
    def see(self, x: Tensor) -> None:
        if x.numel() == 0 or not self._is_finite:
            return
        x = x.detach().float()
        low, high = self._ask(x.aminmax)
        self._is_finite = bool((high - low).isfinite())
        self._is_zero = self._is_zero and not low and not high
        self.obstacle = (
            "its input in calibrate() had NaN, infinity, or a range beyond float32's" if not self._is_finite
            else "its input in calibrate() was all zeros" if self._is_zero
            else None
        )  # fmt: skip
        if self._is_finite:
            self._ask(lambda: self.observer(x))

    @plain_defaults()
    def quantization(self) -> tuple[float, int]:
        """Scale and zero point; sets `obstacle` if there are none."""
        scale, zero_point = self._ask(lambda: [value.item() for value in self.observer.calculate_qparams()])
        try:
            in_range("x_scale", scale)
        except ValueError as error:
            self.obstacle = f"its {error}"
        return scale, int(zero_point)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:
            raise RuntimeError(f"the observer of layer {self.name or '(model)'} failed: {error}") from error


def observe(
    model: nn.Module, layers: dict[str, nn.Module], calibrate: Callable[[nn.Module], object],
    make_observer: MakeObserver,
) -> tuple[dict[str, tuple[float, int]], dict[str, str]]:  # fmt: skip
    """Scale and zero point of the inputs of layers, by name; and why others have none.

    Raises:
        RuntimeError: An observer failed; it names the layer.
    """
    with plain_defaults():
        inputs = {module: _Input(name, make_observer()) for name, module in layers.items()}

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[module].see(args[0] if args else next(iter(kwargs.values())))

    handles = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in inputs]
    try:
        with torch.no_grad(), without_fast_path():
            calibrate(model)
    finally:
        for handle in handles:
            handle.remove()
    found = {each.name: each.quantization() for each in inputs.values() if each.obstacle is None}
    left = {each.name: each.obstacle for each in inputs.values() if each.obstacle is not None}
    return {name: value for name, value in found.items() if name not in left}, left


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """PyTorch's fast path for encoders calls no linear layers, and makes nested tensors."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
