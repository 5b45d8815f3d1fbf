# SPDX-License-Identifier: MIT
"""How far an int8 model is from its float model, layer by layer."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .calibration import without_fast_path
from .inventory import linear_layers
from .modules import CalibratedLinear, DynamicLinear

_HEADINGS = ("layer", "alone", "in the model")


@dataclass(frozen=True)
class LayerComparison:
    """One int8 layer, against the float one.

    Attributes:
        name: The layer's name in the model.
        alone: Signal-to-noise ratio of its output for the float model's inputs, in dB; NaN where the layer
            was not run. This is the error that the layer itself makes.
        within: The same for the inputs that it gets in the int8 model, which have errors of layers before it.
    """

    name: str
    alone: float
    within: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; str() is a table.

    Attributes:
        rows: One for each int8 layer, in the model's order.
        output: Signal-to-noise ratio of the models' outputs, in dB.
    """

    rows: list[LayerComparison]
    output: float

    def worst(self, count: int) -> list[str]:
        """Returns the names of the layers whose own errors are largest, the worst first: for `quantize(skip=…)`.

        Args:
            count: How many; fewer where fewer layers were run.
        """
        run = [row for row in self.rows if not math.isnan(row.alone)]
        return [row.name for row in sorted(run, key=lambda row: row.alone)[:count]]

    def save_plot(self, path: str | Path) -> None:
        """Writes a picture as PNG: both ratios of each layer.

        Raises ModuleNotFoundError where matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("save_plot needs matplotlib: conda install matplotlib-base") from error
        figure = Figure(figsize=(9, 1.5 + 0.3 * len(self.rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(self.rows))
        for shift, heading, values in (
            (-0.2, _HEADINGS[1], [row.alone for row in self.rows]),
            (0.2, _HEADINGS[2], [row.within for row in self.rows]),
        ):
            # Exact ones have no length.
            axes.barh([place + shift for place in places], [_finite(value) for value in values], 0.4, label=heading)
        axes.set_yticks(places, [row.name or "(model)" for row in self.rows])
        axes.margins(y=0.01)
        axes.invert_yaxis()
        axes.set(xlabel="signal-to-noise ratio, dB", title=f"int8 against float; whole output {self.output:.1f} dB")
        axes.legend()
        partial = Path(f"{path}.partial")
        figure.savefig(partial, format="png", dpi=110)
        partial.rename(path)

    def __str__(self) -> str:
        cells = [_HEADINGS, *((row.name or "(model)", f"{row.alone:.1f}", f"{row.within:.1f}") for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in cells]
        return "\n".join([*lines, f"signal-to-noise ratios in dB; of the whole output {self.output:.1f}"])


def compare(float_model: nn.Module, int8_model: nn.Module, inputs: Iterable[Any]) -> Comparison:
    """Compares the layers of an int8 model, and its output, with those of the float model that it was made of.

    Both models are run on each input. A signal-to-noise ratio is that of the float model's output over
    the difference, in sums of squares over all inputs: 20 dB is an error of a tenth.

    Args:
        float_model: What `quantize` was given, without inplace.
        int8_model: What `quantize` returned.
        inputs: Inputs of the models, each of them a tensor, a tuple of arguments or a dict of keyword
            arguments.

    Raises:
        TypeError: A model is not a module.
        ValueError: A model in training mode; no input; no int8 layer, or one that has no float layer of its
            name; a layer that the models call with different shapes, or a different number of times.
    """
    for name, model in (("float_model", float_model), ("int8_model", int8_model)):
        if isinstance(model, nn.Module) and model.training:
            raise ValueError(f"{name} is in training mode, expected {name}.eval()")
    pairs = _pairs(float_model, int8_model)
    output = _Ratio()
    is_empty = True
    with torch.no_grad(), without_fast_path():
        for given in inputs:
            is_empty = False
            with _watched({pair.float_layer: pair.see_float for pair in pairs}):
                float_output = _call(float_model, given)
            with _watched({pair.int8_layer: pair.see_int8 for pair in pairs}):
                int8_output = _call(int8_model, given)
            for pair in pairs:
                pair.check_calls()
            for y, z in zip(_floats(float_output), _floats(int8_output), strict=True):
                output.add(y, z)
    if is_empty:
        raise ValueError("inputs is empty, expected one or more")
    return Comparison([LayerComparison(pair.name, pair.alone.dB, pair.within.dB) for pair in pairs], output.dB)


class _Ratio:
    """Sums of squares of a signal and of its errors."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.is_empty = True

    def add(self, expected: Tensor, got: Tensor) -> None:
        expected = expected.double()
        self.is_empty = self.is_empty and not expected.numel()
        self.signal += expected.square().sum().item()
        self.noise += (got.double() - expected).square().sum().item()

    @property
    def dB(self) -> float:
        if self.is_empty:
            return math.nan
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class _Pair:
    """A float layer and the int8 one, how far they are apart, and what the float one has returned for an input."""

    name: str
    float_layer: nn.Module
    int8_layer: nn.Module
    alone: _Ratio = field(default_factory=_Ratio)
    within: _Ratio = field(default_factory=_Ratio)
    outputs: list[Tensor] = field(default_factory=list)

    def see_float(self, x: Tensor, y: Tensor) -> None:
        self.outputs.append(y)
        self.alone.add(y, self.int8_layer.forward(x))

    def see_int8(self, x: Tensor, y: Tensor) -> None:
        if not self.outputs:
            raise ValueError(f"{self} is called more often in int8_model than in float_model")
        expected = self.outputs.pop(0)
        if expected.shape != y.shape:
            raise ValueError(
                f"{self} returns {list(y.shape)} in int8_model, expected {list(expected.shape)}, as in float_model"
            )
        self.within.add(expected, y)

    def check_calls(self) -> None:
        if self.outputs:
            raise ValueError(f"{self} is called less often in int8_model than in float_model")

    def __str__(self) -> str:
        return f"layer {self.name or '(model)'}"


def _pairs(float_model: nn.Module, int8_model: nn.Module) -> list[_Pair]:
    floats = {name: layer.module for layer in linear_layers(float_model) for name in layer.names}
    pairs = []
    for layer in linear_layers(int8_model):
        if isinstance(layer.module, (DynamicLinear, CalibratedLinear)):
            name = layer.names[0]
            if not isinstance(floats.get(name), nn.Linear):
                raise ValueError(
                    f"int8_model has layer {name or '(model)'}, expected a float one of that name in float_model"
                )
            pairs.append(_Pair(name, floats[name], layer.module))
    if not pairs:
        raise ValueError("int8_model has no int8 layers between floats, expected what acl_qlinear.quantize returned")
    return pairs


@contextmanager
def _watched(layers: dict[nn.Module, Callable[[Tensor, Tensor], None]]) -> Iterator[None]:
    """Calls a layer's function with its input and output after each of its calls."""

    def hook(module: nn.Module, args: Any, kwargs: Any, y: Tensor) -> None:
        layers[module](args[0] if args else next(iter(kwargs.values())), y)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _call(model: nn.Module, given: Any) -> Any:
    if isinstance(given, dict):
        return model(**given)
    return model(*given) if isinstance(given, (tuple, list)) else model(given)


def _floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
