# SPDX-License-Identifier: MIT
"""Linear layers as modules, each with its weight packed once."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.intrinsic.quantized.dynamic as nniqd
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
from torch import Tensor

from . import float_view
from ._stable import completed_layer
from .ops import GRANULARITIES, check_dynamic, pre_scale, prepack, prepack_int8, unpack

# Not their overloads (`.default`): TorchScript compiles no calls of those.
_linear = torch.ops.acl_qlinear.linear
# `linear_int8` for float inputs and outputs: every argument of a call costs 400 modelled cycles.
_linear_static = torch.ops.acl_qlinear.linear_static
_linear_dynamic = torch.ops.acl_qlinear.linear_dynamic
_linear_dynamic_row = torch.ops.acl_qlinear.linear_dynamic_row
# The same without an activation function.
_linear_static_alone = torch.ops.acl_qlinear.linear_static_alone
_linear_dynamic_alone = torch.ops.acl_qlinear.linear_dynamic_alone
_linear_dynamic_row_alone = torch.ops.acl_qlinear.linear_dynamic_row_alone

# A state_dict holds an index into this: names are only ever added, at the end.
_ACTIVATIONS = ("none", "relu", "leaky_relu", "tanh", "gelu", "gelu_tanh", "silu")
_WORDS = {"activation": _ACTIVATIONS, "granularity": GRANULARITIES}
# The parts of a state_dict that are the arguments of `prepack_int8`. No float layer has such keys.
_WEIGHT = ("weight_int8", "weight_scale", "weight_zero_point")
_BIAS, _PRE_SCALE = "bias_fp32", "pre_scale"
_PARTS = (*_WEIGHT, _BIAS, _PRE_SCALE)
# The attributes that every layer has, besides its numbers.
_OF_EVERY_LAYER: dict[str, Any] = {
    "in_features": int, "out_features": int, "packed": Tensor, "has_bias": bool, "has_pre_scale": bool, "_scales": int,
    "float_dtype": torch.dtype | None,
}  # fmt: skip
# Version 0.2.0 saved a layer with these keys, and without what came later.
_KEYS_OF_0_2 = {"weight_int8": "weight", _BIAS: "bias"}
_LATER_THAN_0_2 = ("activation", "negative_slope", "reduce_range", "granularity", "symmetric", "narrow_range")


# Whether state_dicts are without the weights and numbers of our layers.
_is_without_layers = ContextVar("is_without_layers", default=False)


@contextlib.contextmanager
def without_layers() -> Iterator[None]:
    """state_dicts are made, and loaded, without the weights and numbers of our layers."""
    token = _is_without_layers.set(True)
    try:
        yield
    finally:
        _is_without_layers.reset(token)


class _Number(NamedTuple):
    """A number in a state_dict."""

    dtype: torch.dtype
    expected: str
    is_valid: Callable[[Any], bool]


def _index_of(words: tuple[str, ...]) -> _Number:
    return _Number(torch.int64, f"0 to {len(words) - 1}", lambda value: 0 <= value < len(words))


_FLAG = _Number(torch.bool, "True or False", lambda value: True)
# What the operators take: both a scale and its reciprocal are normal numbers in float32.
_SCALE = _Number(torch.float64, "a number from 2^-126 to 2^126", lambda value: 2.0**-126 <= value <= 2.0**126)
_NUMBERS = {
    "activation": _index_of(_ACTIVATIONS),
    "granularity": _index_of(GRANULARITIES),
    "negative_slope": _Number(torch.float64, "a finite number", math.isfinite),
    "scale": _SCALE,
    "zero_point": _Number(torch.int64, "-128 to 255", lambda value: -128 <= value <= 255),
    "x_scale": _SCALE,
    "x_zero_point": _Number(torch.int64, "-128 to 127", lambda value: -128 <= value <= 127),
    "reduce_range": _FLAG,
    "symmetric": _FLAG,
    "narrow_range": _FLAG,
}


class PackedLinear(torch.nn.Module):
    """What the layers share: the packed weight, and how it is saved.

    Pickles and state_dicts hold the weight as it was before packing. So every CPU, build and PyTorch
    loads what another one saved. Only torch.multiprocessing shares the packed weight itself.

    Attributes:
        in_features: K.
        out_features: N.
        packed: The packed weight; see `acl_qlinear.prepack`.
        has_bias: Whether there is a bias.
        has_pre_scale: Whether the input is multiplied by a value for each of its features first; see
            `acl_qlinear.prepack_int8`.
        activation: The activation function; see `acl_qlinear.linear`.
        negative_slope: Of leaky_relu.
        float_dtype: The weight's dtype before `acl_qlinear.quantize`; else None.
    """

    __jit_unused_properties__ = ("weight", "bias")
    # Names of the attributes that are quantization parameters: saved in the state_dict.
    _parameters_of_quantization: tuple[str, ...] = ()
    # Not annotated: TorchScript reads what is, and Python's types only in part.
    float_dtype = None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: str, negative_slope: float,
        dtype: torch.dtype | None = None, pre_scale: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
        self.packed = prepack(weight, bias)
        if pre_scale is not None:
            self.packed = prepack_int8(*unpack(self.packed), pre_scale)
        self.out_features, self.in_features = weight.shape
        self.has_bias = bias is not None
        self.has_pre_scale = pre_scale is not None
        self._scales = 1 if weight.qscheme() == torch.per_tensor_affine else self.out_features
        self.activation = activation
        self.negative_slope = in_range("negative_slope", float(negative_slope))
        self.float_dtype = dtype

    @property
    def weight(self) -> Any:
        """The weight, [N, K].

        In a layer of `acl_qlinear.quantize`, which stands for a torch.nn.Linear, a tensor of the float
        layer's dtype. It is read-only, and dequantized by each operation that uses its values. Its
        shape, dtype and device cost nothing.

        In other layers a method, as in PyTorch's quantized layers: `weight()` returns a qint8 tensor.
        """
        if self.float_dtype is None:
            return self._quantized_weight
        shape = (self.out_features, self.in_features)
        # Compilers trace no new views, and drop what is not used.
        if torch.compiler.is_compiling():
            return float_view.float_weight(self.packed, shape, self.float_dtype)
        return float_view.FloatView(float_view.dequantized_weight, self.packed, shape, self.float_dtype)

    @property
    def bias(self) -> Any:
        """The bias, [N], or None.

        As `weight`, a tensor or a method: `bias()` returns a float32 tensor, or None.
        """
        if self.float_dtype is None:
            return self._float32_bias
        if not self.has_bias:
            return None
        if torch.compiler.is_compiling():
            return float_view.float_bias(self.packed, (self.out_features,), self.float_dtype)
        return float_view.FloatView(float_view.unpacked_bias, self.packed, (self.out_features,), self.float_dtype)

    def _quantized_weight(self) -> Tensor:
        """Returns the quantized weight, qint8 [N, K], as PyTorch's quantized layers do.

        What it is multiplied with is the input times the pre-scale, where there is one.
        """
        return qint8_weight(*unpack(self.packed)[:3])

    def _float32_bias(self) -> Tensor | None:
        """Returns the bias, float32 [N], or None."""
        return unpack(self.packed)[3]

    def extra_repr(self) -> str:
        fused = "" if self.activation == "none" else f", activation={self.activation}"
        parameters = "".join(f", {name}={getattr(self, name)}" for name in self._parameters_of_quantization)
        smooth = ", pre_scale" if self.has_pre_scale else ""
        return f"in_features={self.in_features}, out_features={self.out_features}{parameters}{smooth}{fused}"

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(
                f"{name} of an int8 layer is read-only: its weight and bias are packed together; change the "
                "float layer before acl_qlinear.quantize, or call load_state_dict"
            )
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        super()._apply(fn, recurse)
        packed = fn(self.packed)
        # type() converts integers, too; but a packed weight does not consist of numbers.
        if packed.dtype == torch.uint8:
            self.packed = packed
        if self.float_dtype is not None:
            self.float_dtype = fn(torch.empty(1, dtype=self.float_dtype, device=self.packed.device)).dtype
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedLinear":
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def __getstate__(self) -> dict[str, Any]:
        packed = self.packed if self.packed.is_meta else (*unpack(self.packed), pre_scale(self.packed))
        return {**self.__dict__, "packed": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = state["packed"]
        if not isinstance(parts, Tensor):
            # Counted, since 0.2.0 saved neither number.
            counts = {"has_bias": parts[3] is not None, "_scales": len(parts[1])}
            state = {**state, **counts, "packed": prepack_int8(*parts)}
        super().__setstate__({"has_pre_scale": False, **self._of_0_2(), **state})

    def _parts(self) -> dict[str, Tensor]:
        """The arguments of `prepack_int8` by their keys in a state_dict; without values on the meta device."""
        if self.packed.is_meta:
            N, K, new = self.out_features, self.in_features, self.packed.new_empty
            parts: Any = (
                new((N, K), dtype=torch.int8), new(self._scales, dtype=torch.float64),
                new(self._scales, dtype=torch.int32), new(N, dtype=torch.float32), new(K, dtype=torch.float32),
            )  # fmt: skip
        else:
            parts = (*unpack(self.packed), pre_scale(self.packed))
        return {name: part for name, part in zip(_PARTS, parts, strict=True) if name in self._names()}

    def _names(self) -> tuple[str, ...]:
        """The parts that the layer has."""
        return (*_WEIGHT, *[_BIAS] * self.has_bias, *[_PRE_SCALE] * self.has_pre_scale)

    def _weight_names(self) -> set[str]:
        """Those that are of use together only."""
        return set(self._names()) - {_BIAS}

    def _numbers(self) -> tuple[str, ...]:
        return (*self._parameters_of_quantization, "activation", "negative_slope")

    def _of_0_2(self) -> dict[str, Any]:
        """Attributes that layers had not yet when 0.2.0 pickled them. TorchScript does not see those of a class."""
        return {}

    def _check_together(self, numbers: dict[str, Any]) -> None:
        """Raises ValueError, which begins with a name, for numbers that do not go with one another."""

    def packed_state(self) -> dict[str, Any]:
        """What `set_packed_state` takes: the packed weight itself, and the layer's numbers as in a state_dict."""
        return {name: getattr(self, name) for name in _OF_EVERY_LAYER} | self._saved_numbers()

    def set_packed_state(self, state: dict[str, Any]) -> None:
        """Makes the layer what another one was, whose `packed_state` this is.

        Raises ValueError for anything else. Each call checks the packed weight itself.
        """
        if state.keys() != {*_OF_EVERY_LAYER, *self._numbers()}:
            raise ValueError(f"it has {', '.join(map(str, state))}, expected a {type(self).__name__}'s attributes")
        for name, kind in _OF_EVERY_LAYER.items():
            if not isinstance(state[name], kind):
                raise ValueError(f"{name} is {_description(state[name])}, expected {kind}")
        new = {name: state[name] for name in _OF_EVERY_LAYER}
        for name in self._numbers():
            try:
                new[name] = _number(name, state[name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} {error}") from error
        self._check_together(new)
        self.__dict__.update(new)

    def _saved_numbers(self) -> dict[str, Tensor]:
        numbers = {}
        for name in self._numbers():
            value = getattr(self, name)
            value = _WORDS[name].index(value) if name in _WORDS else value
            numbers[name] = torch.tensor(value, dtype=_NUMBERS[name].dtype, device="cpu")
        return numbers

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not _is_without_layers.get():
            for name, part in {**self._parts(), **self._saved_numbers()}.items():
                destination[prefix + name] = part

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        unknown: list[str] = []
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unknown, error_msgs)
        if _is_without_layers.get():
            unexpected_keys += unknown
            return
        keys = {name: name for name in (*self._names(), *self._numbers())}
        optional: tuple[str, ...] = ()
        if prefix + "weight_int8" not in state_dict and _is_int8(state_dict.get(prefix + "weight")):
            keys |= {name: key for name, key in _KEYS_OF_0_2.items() if name in keys}
            optional = _LATER_THAN_0_2
        given = {name: state_dict[prefix + key] for name, key in keys.items() if prefix + key in state_dict}
        missing_keys += [prefix + keys[name] for name in keys if name not in given and name not in optional]
        unexpected_keys += [key for key in unknown if key.removeprefix(prefix) not in keys.values()]
        errors, new = self._read(given)
        error_msgs += [f"{prefix}{keys[name]}{error}" for name, error in errors]
        # A weight in part goes with nothing else, and neither does one without its pre-scale, or with one of another.
        weight = self._weight_names()
        has_weight = not given.keys().isdisjoint(weight)
        is_same_kind = (prefix + _PRE_SCALE in state_dict) == self.has_pre_scale
        if not errors and (not has_weight or (is_same_kind and given.keys() >= weight)):
            self.__dict__.update(new)

    def _read(self, given: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """What is wrong with parts of a state_dict, by name; and the attributes that they make, if nothing is."""
        errors: list[tuple[str, str]] = []
        new: dict[str, Any] = {}
        for name in self._numbers():
            if name in given:
                try:
                    new[name] = _number(name, given[name])
                except (TypeError, ValueError) as error:
                    errors.append((name, f" {error}"))
        try:
            self._check_together({name: new.get(name, getattr(self, name)) for name in self._numbers()})
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            errors.append((name, f" {rest}"))
        parts_given = {name: given[name] for name in self._names() if name in given}
        errors += [
            (name, f" is {_description(part)}, expected a tensor")
            for name, part in parts_given.items()
            if not isinstance(part, Tensor)
        ]
        if (is_whole := parts_given.keys() >= self._weight_names()) and not _is_int8(given["weight_int8"]):
            errors.append(("weight_int8", f" is {_description(given['weight_int8'])}, expected an int8 tensor"))
        elif is_whole and given["weight_int8"].shape != (self.out_features, self.in_features):
            shape = list(given["weight_int8"].shape)
            errors.append(("weight_int8", f" has shape {shape}, expected [{self.out_features}, {self.in_features}]"))
        elif not errors and (changed := [name for name in parts_given if is_whole or name == _BIAS]):
            try:
                kept = {} if set(changed) == set(self._names()) else self._parts()
                parts = kept | {name: parts_given[name] for name in changed}
                new["packed"] = prepack_int8(*(parts.get(name) for name in _PARTS))
                new["_scales"] = parts["weight_scale"].numel()
            except (AttributeError, TypeError, ValueError, RuntimeError) as error:
                errors.append((changed[0], f" cannot be packed: {error}"))
        return errors, new


def qint8_weight(weight: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """A weight, int8 [N, K], as one of PyTorch's quantized tensors; scale and zero_point: [1] or [N]."""
    if len(scale) == 1:
        return torch._make_per_tensor_quantized_tensor(weight, scale.item(), int(zero_point.item()))
    return torch._make_per_channel_quantized_tensor(weight, scale, zero_point.long(), 0)


def _is_int8(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int8


def _description(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def in_range(name: str, value: float) -> Any:
    """A number that an attribute of this name may be.

    Raises ValueError for another one.
    """
    _, expected, is_valid = _NUMBERS[name]
    if not is_valid(value):
        raise ValueError(f"{name} is {value}, expected {expected}")
    return value


def _number(name: str, saved: Any) -> Any:
    """The attribute that a number in a state_dict stands for."""
    dtype, expected, is_valid = _NUMBERS[name]
    if not isinstance(saved, Tensor) or saved.numel() != 1 or saved.is_meta:
        raise TypeError(f"is {_description(saved)}, expected a tensor with one number")
    if saved.dtype != dtype:
        raise TypeError(f"is {saved.dtype}, expected {dtype}")
    if not is_valid(value := saved.item()):
        raise ValueError(f"is {value}, expected {expected}")
    return _WORDS[name][value] if name in _WORDS else value


@completed_layer("linear")
class Linear(PackedLinear):
    """A statically quantized layer: quint8 or qint8 [..., K] in, the same dtype [..., N] out.

    See `acl_qlinear.linear`.
    """

    _parameters_of_quantization = ("scale", "zero_point")

    def __init__(
        self, weight: Tensor, bias: Tensor | None, scale: float, zero_point: int,
        activation: str = "none", negative_slope: float = 0.01,
    ) -> None:  # fmt: skip
        """Packs the weight.

        Args:
            weight: qint8 [N, K]; see `acl_qlinear.prepack`.
            bias: float32 [N], or None.
            scale: Of the output.
            zero_point: Of the output.
            activation: See `acl_qlinear.linear`.
            negative_slope: Of leaky_relu.

        Raises:
            TypeError: As `acl_qlinear.prepack`.
            ValueError: As `acl_qlinear.prepack`; or another activation function, or a number out of range.
        """
        super().__init__(weight, bias, activation, negative_slope)
        self.scale = in_range("scale", float(scale))
        self.zero_point = in_range("zero_point", int(zero_point))

    @classmethod
    def from_torch(cls, module: torch.nn.Module) -> "Linear":
        """Returns the layer that computes what one of PyTorch's statically quantized layers computes.

        Args:
            module: A torch.ao.nn.quantized.Linear, or a LinearReLU, LinearLeakyReLU or LinearTanh of
                torch.ao.nn.intrinsic.quantized.

        Raises:
            TypeError: Another module.
            ValueError: `prepack` refuses the weight.
        """
        activation = _activation_of(cls, module)
        slope = getattr(module, "negative_slope", 0.01)
        return cls(module.weight(), module.bias(), module.scale, module.zero_point, activation, slope)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., N] for x: [..., K]."""
        if self.activation == "none":
            return _linear(x, self.packed, self.scale, self.zero_point)
        return _linear(x, self.packed, self.scale, self.zero_point, None, self.activation, self.negative_slope)


@completed_layer("linear_dynamic")
class DynamicLinear(PackedLinear):
    """A dynamically quantized layer: float32, bfloat16 or float16 [..., K] in, the same dtype [..., N] out.

    See `acl_qlinear.linear_dynamic`.
    """

    _parameters_of_quantization = ("reduce_range", "granularity", "symmetric", "narrow_range")

    def __init__(
        self, weight: Tensor, bias: Tensor | None, reduce_range: bool = False,
        activation: str = "none", negative_slope: float = 0.01, dtype: torch.dtype | None = None,
        granularity: str = "tensor", symmetric: bool = False, narrow_range: bool = False,
        pre_scale: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Packs the weight.

        Args:
            weight: qint8 [N, K]; see `acl_qlinear.prepack`.
            bias: float32 [N], or None.
            reduce_range: Whether activations have 7 bits instead of 8; by tensor only.
            activation: See `acl_qlinear.linear`.
            negative_slope: Of leaky_relu.
            dtype: Of the float layer that this one stands for: see `weight`. Else None.
            granularity: What shares a scale and a zero point: "tensor" or "row".
            symmetric: Whether zero points are 0; by row only.
            narrow_range: Whether -128 is left out; symmetric only.
            pre_scale: float32 [K], or None; see `acl_qlinear.prepack_int8`.

        Raises:
            TypeError: As `acl_qlinear.prepack`.
            ValueError: As `acl_qlinear.prepack`; or another activation function, a number out of range, or an
                argument that does not go with the granularity.
        """
        check_dynamic(granularity, reduce_range, symmetric, narrow_range)
        super().__init__(weight, bias, activation, negative_slope, dtype, pre_scale)
        self.reduce_range = reduce_range
        self.granularity = granularity
        self.symmetric = symmetric
        self.narrow_range = narrow_range

    def _of_0_2(self) -> dict[str, Any]:
        return {"granularity": "tensor", "symmetric": False, "narrow_range": False}

    def _check_together(self, numbers: dict[str, Any]) -> None:
        check_dynamic(*(numbers[name] for name in ("granularity", "reduce_range", "symmetric", "narrow_range")))

    @classmethod
    def from_torch(cls, module: torch.nn.Module) -> "DynamicLinear":
        """Returns the layer that computes what one of PyTorch's dynamically quantized layers computes.

        Args:
            module: A torch.ao.nn.quantized.dynamic.Linear, or a
                torch.ao.nn.intrinsic.quantized.dynamic.LinearReLU.

        Raises:
            TypeError: Another module.
            ValueError: `prepack` refuses the weight, or it is float16.
        """
        activation = _activation_of(cls, module)
        if (dtype := module._packed_params.dtype) != torch.qint8:
            raise ValueError(f"module's weight is {dtype}, expected torch.qint8")
        return cls(module.weight(), module.bias(), _reduces_range(module), activation)

    def forward(self, input: Tensor) -> Tensor:
        """Returns [..., N] for input: [..., K]."""
        if self.activation != "none":
            return self._activated(input, self.activation, self.negative_slope)
        if self.granularity == "row":
            return _linear_dynamic_row_alone(input, self.packed, self.symmetric, self.narrow_range)
        return _linear_dynamic_alone(input, self.packed, self.reduce_range)

    def _activated(self, input: Tensor, activation: str, negative_slope: float) -> Tensor:
        """As `forward`, with another activation function."""
        if self.granularity == "row":
            return _linear_dynamic_row(
                input, self.packed, self.symmetric, self.narrow_range, None, activation, negative_slope
            )
        return _linear_dynamic(input, self.packed, self.reduce_range, None, activation, negative_slope)

    # The name for callers, which completed_layer changes; `forward` has one that TorchScript can compile.
    activated = _activated


@completed_layer("linear_static")
class CalibratedLinear(PackedLinear):
    """A statically quantized layer between float ones: float in, int8 inside, float out.

    float32, bfloat16 or float16 [..., K] in, quantized to int8 with the scale and zero point that calibration
    found. The same dtype [..., N] out. See `acl_qlinear.linear_int8`.
    """

    _parameters_of_quantization = ("x_scale", "x_zero_point")

    def __init__(
        self, weight: Tensor, bias: Tensor | None, x_scale: float, x_zero_point: int,
        activation: str = "none", negative_slope: float = 0.01, dtype: torch.dtype | None = None,
        pre_scale: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Packs the weight.

        Args:
            weight: qint8 [N, K]; see `acl_qlinear.prepack`.
            bias: float32 [N], or None.
            x_scale: Of the input as int8.
            x_zero_point: Of the input as int8.
            activation: See `acl_qlinear.linear`.
            negative_slope: Of leaky_relu.
            dtype: Of the float layer that this one stands for: see `weight`. Else None.
            pre_scale: float32 [K], or None; see `acl_qlinear.prepack_int8`.

        Raises:
            TypeError: As `acl_qlinear.prepack`.
            ValueError: As `acl_qlinear.prepack`; or another activation function, or a number out of range.
        """
        super().__init__(weight, bias, activation, negative_slope, dtype, pre_scale)
        self.x_scale = in_range("x_scale", float(x_scale))
        self.x_zero_point = in_range("x_zero_point", int(x_zero_point))

    def forward(self, input: Tensor) -> Tensor:
        """Returns [..., N] for input: [..., K].

        Raises:
            TypeError: The input's dtype is not one of these.
        """
        if self.activation != "none":
            return self._activated(input, self.activation, self.negative_slope)
        return _linear_static_alone(input, self.packed, self.x_scale, self.x_zero_point)

    def _activated(self, input: Tensor, activation: str, negative_slope: float) -> Tensor:
        """As `forward`, with another activation function."""
        return _linear_static(input, self.packed, self.x_scale, self.x_zero_point, activation, negative_slope)

    # As in DynamicLinear.
    activated = _activated


# PyTorch's layers that ours compute the same as, and their activation functions.
OF_TORCH: dict[type[PackedLinear], dict[type[torch.nn.Module], str]] = {
    Linear: {
        nnq.Linear: "none",
        nniq.LinearReLU: "relu",
        nniq.LinearLeakyReLU: "leaky_relu",
        nniq.LinearTanh: "tanh",
    },
    DynamicLinear: {nnqd.Linear: "none", nniqd.LinearReLU: "relu"},
}


def _activation_of(kind: type[PackedLinear], module: torch.nn.Module) -> str:
    """The activation function of the layer of PyTorch's that `kind` takes over."""
    known = OF_TORCH[kind]
    if type(module) not in known:
        expected = " or ".join(f"{t.__module__}.{t.__qualname__}" for t in known)
        raise TypeError(f"module is a {type(module).__module__}.{type(module).__qualname__}, expected a {expected}")
    return known[type(module)]


def _reduces_range(module: torch.nn.Module) -> bool:
    """Whether one of PyTorch's dynamic layers quantizes to 7 bits.

    It asks for that since its version 4. But the engine that packed its weight decides, and qnnpack
    ignores it. No attribute tells which engine that was.
    """
    if module.version is None or module.version < 4:
        return False
    linear, weight = torch.ops.quantized.linear_dynamic, module._packed_params._packed_params
    try:
        linear(torch.zeros(1, module.in_features, dtype=torch.float64), weight, True)
    except RuntimeError as error:
        # These do reduce it. They are not called: in PyTorch 2.9, oneDNN rearranges a weight for the
        # first M that it sees, and computes something else for every other M.
        if "(ONEDNN)" in str(error) or "(ACL)" in str(error):
            return True
    # Seven different numbers, at least, so that not all of them are on both grids.
    rows = 1 if module.in_features >= 7 else 7
    x = torch.linspace(-1, 0.7, rows * module.in_features).reshape(rows, module.in_features)
    return not torch.equal(linear(x, weight, True), linear(x, weight, False))


def _shared(layer: PackedLinear) -> tuple[Callable[..., PackedLinear], tuple[Any, ...]]:
    return _from_shared, (type(layer), dict(layer.__dict__))


def _from_shared(kind: type[PackedLinear], state: dict[str, Any]) -> PackedLinear:
    layer = kind.__new__(kind)
    layer.__setstate__(state)
    return layer


# A process on the same machine has the same CPU: torch.multiprocessing shares packed weights.
for _kind in (Linear, DynamicLinear, CalibratedLinear):
    ForkingPickler.register(_kind, _shared)
