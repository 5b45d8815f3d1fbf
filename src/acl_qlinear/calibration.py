# SPDX-License-Identifier: MIT
"""The ranges of layers' inputs, from a run on typical ones; and smoothing, from the same."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._defaults import plain_defaults
from .modules import in_range

_SCHEMES = (torch.per_tensor_affine, torch.per_tensor_symmetric)

_NOT_FINITE = "its input in calibrate() had NaN, infinity, or a range beyond float32's"

MakeObserver = Callable[[], Any]


class Input(NamedTuple):
    """How a layer's input becomes int8.

    Attributes:
        scale: Of all its values.
        zero_point: Of all its values.
        pre_scale: float32 [K], what they are multiplied by first; or None.
    """

    scale: float
    zero_point: int
    pre_scale: Tensor | None


@plain_defaults()
def check_observer(make_observer: MakeObserver) -> None:
    """Checks what makes observers.

    Raises:
        TypeError: It is an observer itself, which all layers would share.
        ValueError: A layer's input cannot be quantized as its observers say.
    """
    kind = type(make_observer).__name__
    if hasattr(make_observer, "calculate_qparams") and not isinstance(make_observer, type):
        raise TypeError(f"observer is a {kind}, expected a function that makes one: lambda: {kind}(…)")
    if not callable(make_observer):
        raise TypeError(
            f"observer is a {kind}, expected a class of acl_qlinear.observers, or a function that makes one"
        )
    observer = make_observer()
    dtype, scheme = getattr(observer, "dtype", None), getattr(observer, "qscheme", None)
    if dtype != torch.qint8:
        raise ValueError(f"observer is for {dtype}, expected torch.qint8: make it with dtype=torch.qint8")
    if scheme not in _SCHEMES:
        raise ValueError(f"observer is for {scheme}, expected {' or '.join(map(str, _SCHEMES))}")


class _Seen:
    """What calibration has seen of one layer's input."""

    def __init__(self, name: str, observer: Any, pre_scale: Tensor | None) -> None:
        self.name, self.observer, self.pre_scale = name, observer, pre_scale
        self.obstacle: str | None = (
            "calibrate() did not run it, or with empty inputs only" if pre_scale is None
            else "calibrate() ran it once only: with smooth, it is called twice"
        )  # fmt: skip
        self._is_finite, self._is_zero = True, True

    @plain_defaults()
    def see(self, x: Tensor) -> None:
        if x.numel() == 0 or not self._is_finite:
            return
        x = x.detach().float()
        if self.pre_scale is not None:
            x = x * self.pre_scale
        low, high = self._ask(x.aminmax)
        self._is_finite = bool((high - low).isfinite())
        self._is_zero = self._is_zero and not low and not high
        self.obstacle = (
            _NOT_FINITE if not self._is_finite
            else "its input in calibrate() was all zeros" if self._is_zero
            else None
        )  # fmt: skip
        if self._is_finite:
            self._ask(lambda: self.observer(x))

    @plain_defaults()
    def result(self) -> Input:
        """How the input becomes int8; sets `obstacle` if it cannot."""
        scale, zero_point = self._ask(lambda: [value.item() for value in self.observer.calculate_qparams()])
        try:
            in_range("x_scale", scale)
        except ValueError as error:
            self.obstacle = f"its {error}"
        return Input(scale, int(zero_point), self.pre_scale)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:
            raise RuntimeError(f"the observer of layer {self.name or '(model)'} failed: {error}") from error


def observe(
    model: nn.Module, layers: dict[str, nn.Linear], calibrate: Callable[[nn.Module], object],
    make_observer: MakeObserver, smooth: float | None,
) -> tuple[dict[str, Input], dict[str, str]]:  # fmt: skip
    """How the inputs of layers become int8, by the layers' names; and why others' do not.

    Args:
        model: The model.
        layers: Layers of it, by name.
        calibrate: Runs the model; with `smooth`, twice.
        make_observer: See `acl_qlinear.quantize`.
        smooth: See `acl_qlinear.quantize`.

    Raises:
        RuntimeError: An observer failed; it names the layer.
    """
    pre_scales: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    if smooth is not None:
        largest = {name: _Largest() for name in layers}
        _run(model, calibrate, {layers[name]: each.see for name, each in largest.items()})
        left = {name: _NOT_FINITE for name, each in largest.items() if not each.is_finite}
        layers = {name: module for name, module in layers.items() if name not in left}
        pre_scales = {
            name: smoothing(each, module.weight, smooth)
            for name, module in layers.items()
            if (each := largest[name].values) is not None
        }
    with plain_defaults():
        seen = {module: _Seen(name, make_observer(), pre_scales.get(name)) for name, module in layers.items()}
    _run(model, calibrate, {module: each.see for module, each in seen.items()})
    found = {each.name: each.result() for each in seen.values() if each.obstacle is None}
    left |= {each.name: each.obstacle for each in seen.values() if each.obstacle is not None}
    return {name: value for name, value in found.items() if name not in left}, left


@plain_defaults()
def smoothing(largest: Tensor, weight: Tensor, strength: float) -> Tensor:
    """What x is to be multiplied by, so that its outliers move into the weight: 1 or less, for each input feature.

    The reciprocals of SmoothQuant's factors, max|x|^a / max|w|^(1 - a) (Xiao et al., 2023, equation 4), in units of
    their geometric mean. Other than there, only features above the mean are scaled: those below would gain nothing, and
    with values that calibration did not see, they would become outliers.

    Args:
        largest: The largest magnitude of each input feature, float32 [K].
        weight: [N, K].
        strength: a.
    """
    of_weight = largest_magnitudes(weight.detach(), 0).float()
    # A larger weight could leave float32, divided by the smallest pre-scale.
    is_used = (largest > 0) & (of_weight > 0) & (of_weight < 2.0**100) & largest.isfinite()
    if not is_used.any():
        return torch.ones_like(largest)
    logarithms = strength * largest[is_used].double().log() - (1 - strength) * of_weight[is_used].double().log()
    pre_scale = torch.ones_like(largest)
    pre_scale[is_used] = (logarithms.mean() - logarithms).clamp(min=-14, max=0).exp().float()
    return pre_scale


def largest_magnitudes(x: Tensor, dim: int) -> Tensor:
    """x.abs().amax(dim), without a second x in memory."""
    low, high = x.aminmax(dim=dim)
    return torch.maximum(-low, high)


class _Largest:
    """The largest magnitude of each feature of one layer's input."""

    values: Tensor | None = None

    @property
    def is_finite(self) -> bool:
        return self.values is None or bool(self.values.isfinite().all())

    @plain_defaults()
    def see(self, x: Tensor) -> None:
        if x.numel():
            largest = largest_magnitudes(x.detach().float().reshape(-1, x.shape[-1]), 0)
            self.values = largest if self.values is None else torch.maximum(self.values, largest)


def _run(
    model: nn.Module, calibrate: Callable[[nn.Module], object], see: dict[nn.Module, Callable[[Tensor], None]]
) -> None:
    """Runs a model, and shows functions the inputs of its layers."""

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Copies of layers have their hooks, too.
        if module in see:
            see[module](args[0] if args else next(iter(kwargs.values())))

    handles = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in see]
    try:
        with torch.no_grad(), without_fast_path():
            calibrate(model)
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """PyTorch's fast path for encoders calls no linear layers, and makes nested tensors."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
