# SPDX-License-Identifier: MIT
"""The layers that are compared, their inputs, and how far ours is from exact."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd

import acl_qlinear
from acl_qlinear import reference
from acl_qlinear.reference import Quantized

Shape = tuple[int, int, int]
# Activations, and what shares a scale of the weight. "u8" and "s8" are static layers between quantized tensors,
# "static" one between floats.
KINDS = (
    "u8 tensor", "s8 tensor", "u8 channel", "s8 channel", "static channel",
    "dynamic tensor", "dynamic channel", "dynamic-row channel",
)  # fmt: skip
# Ours, PyTorch's int8 layer, and its fp32 one.
ENGINES = ("acl", "torch", "fp32")
# PyTorch's reference kernel for per-channel weights takes seconds a call when emulated.
LARGEST_SLOW_CALL = 8 * 768 * 768
# Of static layers' inputs, which are from a normal distribution.
X_SCALE = 0.0273


@dataclass(frozen=True)
class Case:
    """One shape and kind: the input, and a layer per engine, which have this weight and bias."""

    shape: Shape
    kind: str
    x: torch.Tensor
    layers: dict[str, torch.nn.Module]
    fp32_x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    # Other engines' calls, which return what NumPy has.
    peers: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)

    def call(self, engine: str) -> Callable[[], Any]:
        """A call of an engine's layer."""
        if engine in self.peers:
            return self.peers[engine]
        layer, x = self.layers[engine], self.fp32_x if engine == "fp32" else self.x
        return lambda: layer(x)

    def rows(self, M: int) -> "Case":
        """The same layers for the first M rows of the input."""
        return replace(self, shape=(M, *self.shape[1:]), x=self.x[:M], fp32_x=self.fp32_x[:M])

    def runs(self, engine: str) -> bool:
        """Whether an engine can do this: PyTorch has no rows, and 2.6 no signed activations."""
        if engine not in self.layers and engine not in self.peers:
            return False
        if engine != "torch":
            return True
        try:
            self.call(engine)()
        except RuntimeError:
            return False
        return True

    def is_slow(self, engine: str) -> bool:
        """Whether an engine is left out under emulation."""
        M, K, N = self.shape
        return engine == "torch" and self.kind.endswith("channel") and M * K * N > LARGEST_SLOW_CALL


def make_case(M: int, K: int, N: int, kind: str) -> Case:
    """The engines for one shape and kind, from a fixed seed. Raises ValueError for another kind."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    torch.manual_seed(M * 1_000_003 + K * 1_009 + N)
    activations, weights = kind.split()
    fp32 = torch.nn.Linear(K, N)
    weight = acl_qlinear.conversion.quantized_weight(fp32.weight, per_channel=weights == "channel")
    bias = fp32.bias.detach()
    x = torch.randn(M, K)
    if activations == "dynamic-row":
        layers = {"acl": acl_qlinear.DynamicLinear(weight, bias, granularity="row"), "fp32": fp32}
        return Case((M, K, N), kind, x, layers, x, weight, bias)
    if activations == "dynamic":
        dynamic = nnqd.Linear(K, N)
        dynamic.set_weight_bias(weight, bias)
        layers = {"acl": acl_qlinear.DynamicLinear.from_torch(dynamic), "torch": dynamic, "fp32": fp32}
        return Case((M, K, N), kind, x, layers, x, weight, bias)
    zero_point, dtype = (-9, torch.qint8) if activations == "s8" else (113, torch.quint8)
    static = nnq.Linear(K, N)
    static.set_weight_bias(weight, bias)
    static.scale, static.zero_point = 0.0211, zero_point + 5
    if activations == "static":
        layers = {
            "acl": acl_qlinear.CalibratedLinear(weight, bias, X_SCALE, zero_point - 128),
            "torch": torch.nn.Sequential(nnq.Quantize(X_SCALE, zero_point, dtype), static, nnq.DeQuantize()),
            "fp32": fp32,
        }
        return Case((M, K, N), kind, x, layers, x, weight, bias)
    quantized = torch.quantize_per_tensor(x, X_SCALE, zero_point, dtype)
    layers = {"acl": acl_qlinear.Linear.from_torch(static), "torch": static, "fp32": fp32}
    return Case((M, K, N), kind, quantized, layers, x, weight, bias)


def max_error(case: Case, y: np.ndarray, reduce_range: bool = False) -> tuple[float, float]:
    """How far an engine's output, as NumPy's, is from `reference.linear` in the first rows; the share of elements.

    Between quantized tensors: in LSB of the output. Of float outputs: relative to the largest, where they count as
    different from 10⁻⁵ on. reduce_range: whether dynamic activations have 7 bits.
    """
    rows = slice(0, 16)
    # Not our layer's own weight, which may be wrong, too.
    layer, weight, bias = case.layers["acl"], case.weight, case.bias.numpy()
    per_channel = weight.qscheme() == torch.per_channel_affine
    weight_scale = weight.q_per_channel_scales().numpy() if per_channel else weight.q_scale()
    quantized_weight = Quantized(weight.int_repr().numpy(), weight_scale, 0)
    if case.x.is_quantized:
        x = Quantized(case.x.int_repr().numpy()[rows], case.x.q_scale(), case.x.q_zero_point())
        output = (x.values.dtype.type, layer.scale, layer.zero_point)
        expected = reference.linear(x, quantized_weight, bias, output)
        difference = np.abs(y[rows].astype(np.int64) - expected.astype(np.int64))
    else:
        values = case.x.numpy()
        scale: Any
        zero_point: Any
        if isinstance(layer, acl_qlinear.CalibratedLinear):
            scale, zero_point = layer.x_scale, layer.x_zero_point
        elif layer.granularity == "row":
            scale, zero_point = reference.row_quantization(values[rows])
        else:
            low, high = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
            scale = (high - low) / (127 if reduce_range else 255)
            zero_point = round(-low / scale) - 128
        x = reference.quantize(values[rows], scale, zero_point)
        expected = reference.linear(x, quantized_weight, bias)
        difference = np.abs(y[rows] - expected) / np.abs(expected).max()
        difference[difference < 1e-5] = 0
    return float(difference.max()), float((difference > 0).mean())


def our_error(case: Case) -> tuple[float, float]:
    """`max_error` of our layer, which has 7 bits where PyTorch's has."""
    y = case.call("acl")().detach()
    values = (y.int_repr() if y.is_quantized else y).numpy()
    return max_error(case, values, getattr(case.layers["acl"], "reduce_range", False))


def wrong_results(cases: Iterable[tuple[Shape, str]]) -> list[str]:
    """What is wrong with our results on this CPU, a line for each case that is."""
    wrong = []
    for shape, kind in cases:
        case = make_case(*shape, kind)
        error, share = our_error(case)
        # One element of 64 or 768 may be 1 LSB off; float results may not be off at all.
        if error > case.x.is_quantized or share > 1 / 64:
            wrong.append(f"{kind} {shape}: {error} off, {share:.2%} of elements")
    return wrong
