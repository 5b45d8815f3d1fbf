# SPDX-License-Identifier: MIT
"""The operators, as functions, and their fake kernels for torch.compile and torch.export."""

import torch
from torch import Tensor

from ._stable import completed, completed_write

_ops = torch.ops.acl_qlinear
# What a layer between floats takes.
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# What shares the scale and zero point of dynamic quantization. A state_dict holds an index into this.
GRANULARITIES = ("tensor", "row")
_write_int8 = completed_write(_ops.linear_int8_out.default)


def prepack(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Packs the weight of a linear layer for the CPU that it is called on.

    A packed weight is only ever read: it serves any number of threads, any M and any dtype of the
    activations, and it can be copied. A zero point that is not 0 needs the fallback: see
    `forbid_fallback`.

    Args:
        weight: qint8 [N, K], per tensor, or per channel along axis 0.
        bias: float32 [N], in units of real numbers, or None.

    Returns:
        An opaque uint8 tensor [N, bytes].

    Raises:
        TypeError: Another dtype, layout or device.
        ValueError: Another shape or scheme; zero points outside int8; N or K of 0; K above 65,793 (33,025
            with zero points), where 32-bit sums could overflow; a bias or scale that is not finite.
    """
    return _ops.prepack.default(weight, bias)


@completed("prepack_int8")
def prepack_int8(
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    pre_scale: Tensor | None = None,
) -> Tensor:
    """`prepack` for plain tensors.

    Args:
        weight: int8 [N, K].
        scale: float32 or float64, [1] (per tensor) or [N] (per channel).
        zero_point: Integers, [1] or [N], or None for 0.
        bias: float32 [N], in units of real numbers, or None.
        pre_scale: float32 [K], which x is multiplied by, in float32, before it is quantized; or None. Such a weight
            is for float activations alone.

    Returns:
        An opaque uint8 tensor [N, bytes], as from `prepack`.

    Raises:
        TypeError: As `prepack`.
        ValueError: As `prepack`.
    """
    return _ops.prepack_int8.default(weight, scale, zero_point, bias, pre_scale)


@completed("unpack")
def unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Returns what `prepack` was given, exactly. `pre_scale` returns what is left of it.

    Args:
        packed: From `prepack` or `prepack_int8`.

    Returns:
        The arguments of `prepack_int8`: weight (int8 [N, K]), scale (float64 [1] or [N]), zero_point
        (int32, as scale), and bias (float32 [N], or None).
    """
    weight, scale, zero_point, bias = _ops.unpack.default(packed)
    return weight, scale, zero_point, bias if bias.numel() else None


@completed("pre_scale")
def pre_scale(packed: Tensor) -> Tensor | None:
    """Returns the pre-scale of `prepack_int8`, float32 [K], or None.

    Args:
        packed: From `prepack` or `prepack_int8`.
    """
    values = _ops.pre_scale.default(packed)
    return values if values.numel() else None


@completed("kernel_name")
def kernel_name(packed: Tensor) -> str:
    """Returns ACL's name of the kernel that a packed weight is for.

    Calls with few rows use a kernel of ours that reads the same packed weight. This is for real
    tensors only: torch.compile and torch.export do not know what a packed weight contains.

    Args:
        packed: From `prepack` or `prepack_int8`.

    Raises:
        TypeError: As `linear`, for a tensor that is not a packed weight.
        ValueError: As `linear`, for a tensor that is not a packed weight.
    """
    return _ops.kernel_name.default(packed)


@completed("linear")
def linear(
    x: Tensor,
    packed: Tensor,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:
    """Computes y = f(x W^T + b) for quantized tensors.

    A scale is a number from 2^-126 to 2^126. For inference: a gradient through it raises
    NotImplementedError.

    A quantized y, without activation function:

        y = clamp(round((sum_k (x - zx) (w - zw)) * float32(sx sw / sy) + b / sy) + zy)

    The sum is in integers. Rounding is to nearest, ties to even. Values saturate. With an activation
    function f, and for float outputs:

        v = f((sum_k (x - zx) (w - zw)) * float32(sx sw) + b)

    in float32, then quantized as above. A row of y depends on that row of x alone, bit for bit.

    Args:
        x: quint8 or qint8 [..., K], per tensor, any zero point.
        packed: From `prepack` or `prepack_int8`.
        output_scale: Of a quantized output.
        output_zero_point: Of a quantized output.
        output_dtype: None for x's dtype; or float32, bfloat16 or float16, for which the output's scale and zero
            point are not used.
        activation: none, relu, leaky_relu, tanh, gelu, gelu_tanh or silu.
        negative_slope: Of leaky_relu.

    Returns:
        A tensor [..., N].

    Raises:
        TypeError: Names the argument, its value and what was expected.
        ValueError: Names the argument, its value and what was expected.
    """
    return _ops.linear.default(x, packed, output_scale, output_zero_point, output_dtype, activation, negative_slope)


@completed("linear_int8")
def linear_int8(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    packed: Tensor,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = torch.float32,
    activation: str = "none",
    negative_slope: float = 0.01,
    out: Tensor | None = None,
) -> Tensor:
    """`linear` for plain tensors.

    A float x is quantized to int8: clamp(round(x * float32(1 / x_scale)) + x_zero_point). NaN becomes
    x_zero_point, as in torch.quantize_per_tensor on AArch64.

    Args:
        x: int8, uint8, float32, bfloat16 or float16 [..., K].
        x_scale: Of x, or of the int8 values that a float x becomes.
        x_zero_point: As x_scale.
        packed: From `prepack` or `prepack_int8`.
        output_scale: Of an int8 or uint8 output.
        output_zero_point: Of an int8 or uint8 output.
        output_dtype: int8, uint8, float32, bfloat16 or float16; None for a float x's own, float32 for an integer x.
            Not used with `out`.
        activation: As in `linear`.
        negative_slope: As in `linear`.
        out: Where to write, instead of a new tensor: [..., N] of any of these dtypes. It may overlap x.

    Returns:
        A tensor [..., N], or `out`.

    Raises:
        RuntimeError: x or out requires grad, and out is given; out is expanded, so its elements share memory.
        TypeError: As `linear`; a quantized tensor, whose scale would not be used.
        ValueError: As `linear`.
    """
    if out is None:
        return _ops.linear_int8.default(
            x, x_scale, x_zero_point, packed, output_scale, output_zero_point, output_dtype,
            activation, negative_slope,
        )  # fmt: skip
    _write_int8(x, x_scale, x_zero_point, packed, output_scale, output_zero_point, activation, negative_slope, out)
    return out


@completed("linear_dynamic")
def linear_dynamic(
    x: Tensor,
    packed: Tensor,
    reduce_range: bool = False,
    output_dtype: torch.dtype | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
    granularity: str = "tensor",
    symmetric: bool = False,
    narrow_range: bool = False,
) -> Tensor:
    """`linear` for float activations, quantized with the scale and zero point of their range.

    By tensor, scale and zero point are those of `torch.ops.quantized.linear_dynamic`, over all of x.

    By row (per token), each row of x has its own, those of torchao's `choose_qparams_affine` for int8,
    and with an activation function f:

        v = f((sum_k (x - zx) (w - zw)) * sx * float32(sw) + b)

    in float32, from left to right. The last multiplication and the addition are one operation. A row of y then
    depends on that row of x alone. NaN or infinity in a row of x makes that row of y NaN or infinite. So does a
    row that is not symmetric and whose range x's dtype does not hold, as in torchao: from -33,000 to 33,000 in
    float16.

    Args:
        x: float32, bfloat16 or float16 [..., K].
        packed: From `prepack` or `prepack_int8`.
        reduce_range: Whether to quantize to 7 bits instead of 8, as PyTorch's own; by tensor only.
        output_dtype: float32, bfloat16 or float16; None for x's.
        activation: As in `linear`.
        negative_slope: As in `linear`.
        granularity: What shares a scale and a zero point: "tensor" or "row".
        symmetric: Whether zero points are 0, torchao's default; by row only.
        narrow_range: Whether -128 is left out, and scales are 1e-5 or more, as in torchao before 0.18; symmetric only.

    Returns:
        A tensor [..., N].

    Raises:
        RuntimeError: NaN in x, by tensor, with PyTorch's message.
        TypeError: As `linear`.
        ValueError: As `linear`; an argument that does not go with the granularity.
    """
    # Not in every call: the checks cost as much as a tenth of a small one.
    if (granularity, symmetric, narrow_range) != ("tensor", False, False) or not isinstance(reduce_range, bool):
        check_dynamic(granularity, reduce_range, symmetric, narrow_range)
    if granularity == "row":
        return _ops.linear_dynamic_row.default(
            x, packed, symmetric, narrow_range, output_dtype, activation, negative_slope
        )
    return _ops.linear_dynamic.default(x, packed, reduce_range, output_dtype, activation, negative_slope)


@completed("add")
def add(a: Tensor, b: Tensor, output_scale: float, output_zero_point: int, relu: bool = False) -> Tensor:
    """Computes y = a + b for quantized tensors, element by element.

    In float32, where the product of b is rounded, and that of a is added to it in one operation:

        y = clamp(round((a - za) * float32(sa / sy) + (b - zb) * float32(sb / sy)) + zy)

    Rounding is to nearest, ties to even. Values saturate.

    Args:
        a: quint8 or qint8, per tensor, of any shape.
        b: Of a's dtype and shape: nothing is broadcast.
        output_scale: sy.
        output_zero_point: zy.
        relu: Whether y is not below zy, which stands for 0.

    Returns:
        A tensor of a's dtype and shape.

    Raises:
        TypeError: Another dtype, layout or device.
        ValueError: Another shape; a scale for each channel; a scale or zero point out of range.
    """
    return _ops.add.default(a, b, output_scale, output_zero_point, relu)


def check_flags(**flags: bool) -> None:
    """Raises TypeError for an argument that is neither True nor False: "no" would count as True."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected True or False")


def check_dynamic(granularity: str, reduce_range: bool, symmetric: bool, narrow_range: bool) -> None:
    """Raises TypeError or ValueError for arguments of `linear_dynamic` that are wrong, or do not go together."""
    check_flags(reduce_range=reduce_range, symmetric=symmetric, narrow_range=narrow_range)
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity is {granularity!r}, expected one of {', '.join(GRANULARITIES)}")
    if reduce_range and granularity != "tensor":
        raise ValueError(f'reduce_range is True, expected False with granularity {granularity!r}: it is for "tensor"')
    if symmetric and granularity != "row":
        raise ValueError(f'symmetric is True, expected False with granularity {granularity!r}: it is for "row"')
    if narrow_range and not symmetric:
        raise ValueError("narrow_range is True, expected False without symmetric=True")


def forbid_fallback(forbidden: bool = True) -> None:
    """Makes weights with a zero point that is not 0 an error, in `prepack` and in calls.

    ACL has no zero points of weights. The fallback multiplies with the weights as they are, and
    corrects the result in a pass over activations and products, in 32-bit integers.

    Args:
        forbidden: False allows them again.
    """
    _ops.forbid_fallback.default(forbidden)


def fallback_calls() -> int:
    """Returns how many calls of this process used the fallback (see `forbid_fallback`)."""
    return _ops.fallback_calls.default()


# Kernels for all PyTorchs alike.


@torch.library.impl("acl_qlinear::prepack", "default")
def _(weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    op = "acl_qlinear::prepack: "
    if weight is None or weight.dtype != torch.qint8 or weight.device.type != "cpu":
        what = None if weight is None else f"{weight.dtype} {list(weight.shape)} on {weight.device}"
        raise TypeError(f"{op}weight is {what}, expected a qint8 CPU tensor")
    if weight.qscheme() == torch.per_tensor_affine:
        scale = torch.tensor([weight.q_scale()], dtype=torch.float64, device="cpu")
        zero_point = torch.tensor([weight.q_zero_point()], device="cpu")
        return prepack_int8(weight.int_repr(), scale, zero_point, bias)
    if weight.qscheme() != torch.per_channel_affine:
        raise ValueError(f"{op}weight has scheme {weight.qscheme()}, expected per_tensor_affine or per_channel_affine")
    if weight.q_per_channel_axis() != 0:
        raise ValueError(
            f"{op}weight is quantized along axis {weight.q_per_channel_axis()}, expected 0, the output features"
        )
    return prepack_int8(weight.int_repr(), weight.q_per_channel_scales(), weight.q_per_channel_zero_points(), bias)


@torch.library.impl("acl_qlinear::no_gradient", "default")
def _(gradient: Tensor, in_features: int, layer: str) -> Tensor:
    raise NotImplementedError(
        f"{layer} has no gradient, since it is for inference: call the model in torch.no_grad(), or train the float "
        "model and quantize it afterwards"
    )


# Fake kernels: shapes and dtypes. out_features is the packed weight's first size; the other
# depends on the CPU.


def _check_devices(**tensors: Tensor | None) -> None:
    """Fake kernels get real calls too, where one tensor is on the meta device."""
    devices = {name: t.device for name, t in tensors.items() if t is not None}
    others = [name for name, device in devices.items() if device.type != "cpu"]
    on_cpu = [name for name in devices if name not in others]
    if others and on_cpu:
        raise TypeError(f"{others[0]} is on {devices[others[0]]}, expected cpu, as {on_cpu[0]}")


def _check_has_values(name: str, t: Tensor) -> None:
    """What a packed weight looks like depends on values."""
    if t.device.type == "meta":
        raise TypeError(f"{name} is {t.dtype} {list(t.shape)} on meta, expected a CPU tensor")


def _like(x: Tensor, packed: Tensor, dtype: torch.dtype) -> Tensor:
    _check_devices(packed=packed, x=x)
    return x.new_empty((*x.shape[:-1], packed.shape[0]), dtype=dtype)


@torch.library.register_fake("acl_qlinear::prepack")
def _(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check_has_values("weight", weight)
    _check_devices(weight=weight, bias=bias)
    return weight.new_empty((weight.shape[0], torch.library.get_ctx().new_dynamic_size()), dtype=torch.uint8)


@torch.library.register_fake("acl_qlinear::prepack_int8")
def _(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None = None, bias: Tensor | None = None,
    pre_scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    _check_has_values("weight", weight)
    _check_devices(weight=weight, scale=scale, zero_point=zero_point, bias=bias, pre_scale=pre_scale)
    return weight.new_empty((weight.shape[0], torch.library.get_ctx().new_dynamic_size()), dtype=torch.uint8)


@torch.library.register_fake("acl_qlinear::unpack")
def _(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_has_values("packed", packed)
    context = torch.library.get_ctx()
    scales = context.new_dynamic_size()
    return (
        packed.new_empty((packed.shape[0], context.new_dynamic_size()), dtype=torch.int8),
        packed.new_empty((scales,), dtype=torch.float64),
        packed.new_empty((scales,), dtype=torch.int32),
        packed.new_empty((context.new_dynamic_size(),), dtype=torch.float32),
    )


@torch.library.register_fake("acl_qlinear::pre_scale")
def _(packed: Tensor) -> Tensor:
    _check_has_values("packed", packed)
    return packed.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.float32)


@torch.library.register_fake("acl_qlinear::linear")
def _(
    x: Tensor, packed: Tensor, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None = None, activation: str = "none", negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    _check_devices(packed=packed, x=x)
    if output_dtype in FLOATS:
        return _like(x, packed, output_dtype)
    return torch._empty_affine_quantized(
        (*x.shape[:-1], packed.shape[0]), scale=output_scale, zero_point=output_zero_point, dtype=x.dtype,
        device=x.device,
    )  # fmt: skip


@torch.library.register_fake("acl_qlinear::linear_int8")
def _(
    x: Tensor, x_scale: float, x_zero_point: int, packed: Tensor, output_scale: float = 1.0,
    output_zero_point: int = 0, output_dtype: torch.dtype | None = torch.float32, activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, output_dtype or (x.dtype if x.is_floating_point() else torch.float32))


@torch.library.register_fake("acl_qlinear::linear_int8_out")
def _(
    x: Tensor, x_scale: float, x_zero_point: int, packed: Tensor, output_scale: float, output_zero_point: int,
    activation: str, negative_slope: float, out: Tensor,
) -> None:  # fmt: skip
    _check_devices(packed=packed, x=x, out=out)


@torch.library.register_fake("acl_qlinear::linear_static")
def _(
    x: Tensor, packed: Tensor, x_scale: float, x_zero_point: int, activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, x.dtype)


@torch.library.register_fake("acl_qlinear::linear_dynamic")
def _(
    x: Tensor, packed: Tensor, reduce_range: bool = False, output_dtype: torch.dtype | None = None,
    activation: str = "none", negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, output_dtype or x.dtype)


@torch.library.register_fake("acl_qlinear::linear_dynamic_row")
def _(
    x: Tensor, packed: Tensor, symmetric: bool = False, narrow_range: bool = False,
    output_dtype: torch.dtype | None = None, activation: str = "none", negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, output_dtype or x.dtype)


def _like_x(x: Tensor, packed: Tensor, *quantization: float) -> Tensor:
    return _like(x, packed, x.dtype)


for _operator in ("linear_static_alone", "linear_dynamic_alone", "linear_dynamic_row_alone"):
    torch.library.register_fake(f"acl_qlinear::{_operator}", _like_x)


@torch.library.register_fake("acl_qlinear::add")
def _(a: Tensor, b: Tensor, output_scale: float, output_zero_point: int, relu: bool = False) -> Tensor:
    _check_devices(a=a, b=b)
    return _sum_of(a, b, output_scale, output_zero_point)


def _sum_of(qa: Tensor, qb: Tensor, scale: float, zero_point: int) -> Tensor:
    shape = torch.broadcast_shapes(qa.shape, qb.shape)
    return torch._empty_affine_quantized(shape, scale=scale, zero_point=zero_point, dtype=qa.dtype, device=qa.device)


torch.library.register_fake("acl_qlinear::quantized_add", _sum_of)
torch.library.register_fake("acl_qlinear::quantized_add_relu", _sum_of)


@torch.library.register_fake("acl_qlinear::no_gradient")
def _(gradient: Tensor, in_features: int, layer: str) -> Tensor:
    return gradient.new_empty((*gradient.shape[:-1], in_features))
