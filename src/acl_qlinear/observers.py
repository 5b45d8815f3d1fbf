# SPDX-License-Identifier: MIT
"""Observers of a layer's input: from the values that it had to the scale and zero point of int8.

Each is called with every input, and then asked for `calculate_qparams()`, as torch.ao.quantization's are. All ranges
are per tensor, and contain 0.
"""

import math
from numbers import Real

import torch
from torch import Tensor

# Of a histogram, on each side of 0: some dozens for each of int8's steps, also where outliers are cut off.
_BINS = 2**13
# Below that of every float32.
_LEAST_EXPONENT = -500
# The mean squared error is tried with these parts of the range, on each side.
_PARTS = torch.arange(1, 65, dtype=torch.float64) / 64


class _Observer:
    dtype, qscheme = torch.qint8, torch.per_tensor_affine

    def __call__(self, x: Tensor) -> None:
        """Takes the values of one input, float32 of any shape, not empty and all finite."""
        raise NotImplementedError

    def range(self) -> tuple[float, float]:
        """Returns the lowest and the highest value that int8 is to stand for: at most 0, and at least 0."""
        raise NotImplementedError

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns scale and zero point, float64 and int64, each with one element."""
        low, high = self.range()
        scale, zero_point = _quantization(torch.tensor(low, dtype=torch.float64), torch.tensor(high))
        return scale, zero_point.long()


class MinMax(_Observer):
    """The range of all values."""

    def __init__(self) -> None:
        self._low = self._high = 0.0

    def __call__(self, x: Tensor) -> None:
        low, high = x.aminmax()
        self._low, self._high = min(self._low, low.item()), max(self._high, high.item())

    def range(self) -> tuple[float, float]:
        return self._low, self._high


class _Histogram(_Observer):
    """Counts values in bins of one width, a power of two, so that two bins are one of twice the width."""

    def __init__(self) -> None:
        self._width = 0.0
        self._counts = torch.zeros(2 * _BINS, dtype=torch.int64)

    def __call__(self, x: Tensor) -> None:
        largest = x.abs().max().item()
        # Zeros fit into bins of any width, and leave it to others.
        exponent = math.frexp(largest)[1] if largest else _LEAST_EXPONENT
        width = max(self._width, math.ldexp(1, exponent) / _BINS)
        self._widen(width)
        bins = (x.flatten().double() / width).floor().long() + _BINS
        # Only the end of the range itself can be the next bin's beginning.
        self._counts += torch.bincount(bins.clamp(max=2 * _BINS - 1), minlength=2 * _BINS)

    def _widen(self, width: float) -> None:
        if self._width and width > self._width:
            ratio = min(int(width / self._width), _BINS)
            merged = self._counts.reshape(-1, ratio).sum(1)
            first = _BINS - len(merged) // 2
            self._counts = torch.zeros_like(self._counts)
            self._counts[first : first + len(merged)] = merged
        self._width = width

    def _edge(self, bin: int) -> float:
        return (bin - _BINS) * self._width

    def _used(self) -> Tensor:
        return self._counts.nonzero().flatten()

    def range(self) -> tuple[float, float]:
        # Of no values, as of zeros alone.
        return self._range() if self._width else (0.0, 0.0)

    def _range(self) -> tuple[float, float]:
        """The range of some values."""
        raise NotImplementedError

    def _whole_range(self) -> tuple[float, float]:
        used = self._used()
        return min(0.0, self._edge(int(used[0]))), max(0.0, self._edge(int(used[-1]) + 1))


class Percentile(_Histogram):
    """The range that has a percentage of all values in it: half of the others are below, half above."""

    def __init__(self, percent: float = 99.99) -> None:
        """Takes the percentage, above 50 and at most 100.

        Raises:
            TypeError: Not a number.
            ValueError: Another percentage.
        """
        if not isinstance(percent, (Real, float)):
            raise TypeError(f"percent is {percent!r}, expected a number above 50 and at most 100")
        if not 50 < percent <= 100:
            raise ValueError(f"percent is {percent}, expected a number above 50 and at most 100")
        super().__init__()
        self._cut = (1 - percent / 100) / 2

    def _range(self) -> tuple[float, float]:
        until = self._counts.cumsum(0)
        # How many values are left out on each side.
        cut = int(self._cut * int(until[-1]) + 1e-6)
        low = int((until > cut).nonzero()[0])
        high = int((until >= until[-1] - cut).nonzero()[0])
        return min(0.0, self._edge(low)), max(0.0, self._edge(high + 1))


class MeanSquaredError(_Histogram):
    """The range with the least mean squared difference between the values and what int8 makes of them.

    Searched for by turns on each side, among 64 parts of the range of all values.
    """

    def _range(self) -> tuple[float, float]:
        low, high = self._whole_range()
        used = self._used()
        # In units of bins, which float32 holds.
        values, counts = used - _BINS + 0.5, self._counts[used].float()
        low, high = low / self._width, high / self._width
        low_part = high_part = torch.ones(1, dtype=torch.float64)
        for _ in range(2):
            low_part = _PARTS[_errors(values, counts, low * _PARTS, high * high_part).argmin()]
            high_part = _PARTS[_errors(values, counts, low * low_part, high * _PARTS).argmin()]
        return low * low_part.item() * self._width, high * high_part.item() * self._width


def _quantization(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, float64, of ranges. As torch.ao's observers calculate them, but in float64."""
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).eps)
    return scale, (-128 - low / scale).round().clamp(-128, 127)


def _errors(values: Tensor, counts: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """For each range, the sum of the squared differences between values, float32, and what int8 makes of them."""
    scale, zero_point = (part.float()[:, None] for part in _quantization(*torch.broadcast_tensors(low, high)))
    integers = ((values / scale).round() + zero_point).clamp(-128, 127)
    return ((integers - zero_point) * scale - values).square() @ counts
