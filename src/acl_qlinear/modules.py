# SPDX-License-Identifier: MIT
"""Linear layers as modules, each with its weight packed once."""

from typing import Any, ClassVar

import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.intrinsic.quantized.dynamic as nniqd
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
from torch import Tensor

from .ops import prepack, prepack_int8, unpack

_linear = torch.ops.acl_qlinear.linear.default
_linear_int8 = torch.ops.acl_qlinear.linear_int8.default
_linear_dynamic = torch.ops.acl_qlinear.linear_dynamic.default
# The parts of the state_dict that are arguments of `prepack_int8`.
_PACKED_PARTS = ("weight", "weight_scale", "weight_zero_point", "bias")


class PackedLinear(torch.nn.Module):
    """What the layers share: the packed weight, and how it is saved.

    Pickles and state_dicts hold the weight as it was before packing. So every CPU, build and PyTorch
    loads what another one saved.

    Attributes:
        in_features: K.
        out_features: N.
        packed: The packed weight; see `acl_qlinear.prepack`.
        activation: The activation function; see `acl_qlinear.linear`.
        negative_slope: Of leaky_relu.
    """

    # Names of the attributes that are quantization parameters: saved in the state_dict.
    _parameters_of_quantization: tuple[str, ...] = ()

    def __init__(self, packed: Tensor, in_features: int, activation: str, negative_slope: float) -> None:
        super().__init__()
        self.packed = packed
        self.out_features, self.in_features = packed.shape[0], in_features
        self.activation = activation
        self.negative_slope = float(negative_slope)

    def weight(self) -> Tensor:
        """Returns the quantized weight, qint8 [N, K], as PyTorch's quantized layers do."""
        weight, scale, zero_point, _ = unpack(self.packed)
        if len(scale) == 1:
            return torch._make_per_tensor_quantized_tensor(weight, scale.item(), zero_point.item())
        return torch._make_per_channel_quantized_tensor(weight, scale, zero_point.long(), 0)

    def bias(self) -> Tensor | None:
        """Returns the bias, float32 [N], or None."""
        return unpack(self.packed)[3]

    def extra_repr(self) -> str:
        fused = "" if self.activation == "none" else f", activation={self.activation}"
        parameters = "".join(f", {name}={getattr(self, name)}" for name in self._parameters_of_quantization)
        return f"in_features={self.in_features}, out_features={self.out_features}{parameters}{fused}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": unpack(self.packed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "packed": prepack_int8(*state["packed"])})

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in zip(_PACKED_PARTS, unpack(self.packed), strict=True):
            if value is not None:
                destination[prefix + name] = value
        for name in self._parameters_of_quantization:
            value = getattr(self, name)
            dtype = torch.float64 if isinstance(value, float) else torch.int64
            destination[prefix + name] = torch.tensor(value, dtype=dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        mine = (*_PACKED_PARTS, *self._parameters_of_quantization)
        found = {name: state_dict[prefix + name] for name in mine if prefix + name in state_dict}
        missing = [prefix + name for name in mine if name not in found and name != "bias"]
        if missing:
            missing_keys += missing
        elif found["weight"].shape != (self.out_features, self.in_features):
            error_msgs.append(
                f"{prefix}weight has shape {list(found['weight'].shape)}, expected "
                f"[{self.out_features}, {self.in_features}]"
            )
        else:
            self.packed = prepack_int8(*(found.get(name) for name in _PACKED_PARTS))
            for name in self._parameters_of_quantization:
                setattr(self, name, found[name].item())
        rest = {key: value for key, value in state_dict.items() if key not in {prefix + name for name in mine}}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


class Linear(PackedLinear):
    """A statically quantized layer: quint8 or qint8 [..., K] in, the same dtype [..., N] out.

    See `acl_qlinear.linear`.
    """

    _parameters_of_quantization = ("scale", "zero_point")
    # PyTorch's layers that it computes the same as, and their activation functions.
    _of_torch: ClassVar[dict[type, str]] = {
        nnq.Linear: "none",
        nniq.LinearReLU: "relu",
        nniq.LinearLeakyReLU: "leaky_relu",
        nniq.LinearTanh: "tanh",
    }

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
        """
        super().__init__(prepack(weight, bias), weight.shape[1], activation, negative_slope)
        self.scale = float(scale)
        self.zero_point = int(zero_point)

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
        activation = _activation_of(cls._of_torch, module)
        slope = getattr(module, "negative_slope", 0.01)
        return cls(module.weight(), module.bias(), module.scale, module.zero_point, activation, slope)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., N] for x: [..., K]."""
        if self.activation == "none":
            return _linear(x, self.packed, self.scale, self.zero_point)
        return _linear(x, self.packed, self.scale, self.zero_point, None, self.activation, self.negative_slope)


class DynamicLinear(PackedLinear):
    """A dynamically quantized layer: float32 or bfloat16 [..., K] in, the same dtype [..., N] out.

    See `acl_qlinear.linear_dynamic`.
    """

    _of_torch: ClassVar[dict[type, str]] = {nnqd.Linear: "none", nniqd.LinearReLU: "relu"}

    def __init__(
        self, weight: Tensor, bias: Tensor | None, reduce_range: bool = False,
        activation: str = "none", negative_slope: float = 0.01,
    ) -> None:  # fmt: skip
        """Packs the weight.

        Args:
            weight: qint8 [N, K]; see `acl_qlinear.prepack`.
            bias: float32 [N], or None.
            reduce_range: Whether activations have 7 bits instead of 8.
            activation: See `acl_qlinear.linear`.
            negative_slope: Of leaky_relu.
        """
        super().__init__(prepack(weight, bias), weight.shape[1], activation, negative_slope)
        self.reduce_range = bool(reduce_range)

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
        activation = _activation_of(cls._of_torch, module)
        if (dtype := module._packed_params.dtype) != torch.qint8:
            raise ValueError(f"module's weight is {dtype}, expected torch.qint8")
        # As PyTorch's forward: reduced since version 4 of the module.
        reduce_range = module.version is not None and module.version >= 4
        return cls(module.weight(), module.bias(), reduce_range, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., N] for x: [..., K]."""
        return _linear_dynamic(x, self.packed, self.reduce_range, None, self.activation, self.negative_slope)


class CalibratedLinear(PackedLinear):
    """A statically quantized layer between float ones: float in, int8 inside, float out.

    float32 or bfloat16 [..., K] in, quantized to int8 with the scale and zero point that calibration
    found. The same dtype [..., N] out. See `acl_qlinear.linear_int8`.
    """

    _parameters_of_quantization = ("x_scale", "x_zero_point")

    def __init__(
        self, weight: Tensor, bias: Tensor | None, x_scale: float, x_zero_point: int,
        activation: str = "none", negative_slope: float = 0.01,
    ) -> None:  # fmt: skip
        """Packs the weight.

        Args:
            weight: qint8 [N, K]; see `acl_qlinear.prepack`.
            bias: float32 [N], or None.
            x_scale: Of the input as int8.
            x_zero_point: Of the input as int8.
            activation: See `acl_qlinear.linear`.
            negative_slope: Of leaky_relu.
        """
        super().__init__(prepack(weight, bias), weight.shape[1], activation, negative_slope)
        self.x_scale = float(x_scale)
        self.x_zero_point = int(x_zero_point)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., N] for x: [..., K]."""
        return _linear_int8(
            x, self.x_scale, self.x_zero_point, self.packed, 1.0, 0, x.dtype, self.activation, self.negative_slope
        )


def _activation_of(known: dict[type, str], module: torch.nn.Module) -> str:
    """The activation function of a layer of PyTorch's whose type is one of `known`."""
    if type(module) not in known:
        expected = " or ".join(f"{t.__module__}.{t.__qualname__}" for t in known)
        raise TypeError(f"module is a {type(module).__module__}.{type(module).__qualname__}, expected a {expected}")
    return known[type(module)]
