"""The operators, as functions, and their fake kernels for torch.compile and torch.export."""

import torch
from torch import Tensor

_ops = torch.ops.acl_qlinear


def prepack(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Packs the weight of a linear layer for the CPU that it is called on.

    weight: qint8 [N, K], per tensor, or per channel along axis 0. bias: float32 [N], in the
    units of the real numbers that the quantized ones stand for, or None.
    Returns an opaque uint8 tensor [N, bytes], which is only ever read: it serves any number of
    threads, any M and any dtype of the activations, and can be copied.

    A zero point that is not 0 needs the fallback: see `forbid_fallback`.

    Raises TypeError for another dtype or device, ValueError for another shape or scheme, for K
    above 65,793 (with zero points 33,025; beyond it 32-bit sums could overflow), and for a bias
    or scale that is not finite.
    """
    return _ops.prepack.default(weight, bias)


def prepack_int8(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """`prepack` for plain tensors.

    weight: int8 [N, K]. scale: float32 or float64, [1] or [N]. zero_point: integers, [1] or
    [N], or None for 0. bias: float32 [N] or None.
    """
    return _ops.prepack_int8.default(weight, scale, zero_point, bias)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What `prepack` was given, exactly.

    Returns weight (int8 [N, K]), scale (float64 [1] or [N]), zero_point (int32, as scale) and
    bias (float32 [N], or None): the arguments of `prepack_int8`.
    """
    weight, scale, zero_point, bias = _ops.unpack.default(packed)
    return weight, scale, zero_point, bias if bias.numel() else None


def kernel_name(packed: Tensor) -> str:
    """Returns ACL's name of the kernel that a packed weight is for.

    Calls with few rows use a kernel of ours that reads the same packed weight. For real tensors
    only: torch.compile and torch.export do not know what a packed weight contains.

    Raises TypeError and ValueError as `linear` does for a tensor that is not a packed weight.
    """
    return _ops.kernel_name.default(packed)


def linear(
    x: Tensor,
    packed: Tensor,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:
    """y = f(x W^T + b) for quantized tensors.

    x: quint8 or qint8 [..., K], per tensor, any zero point. packed: from `prepack`.
    output_dtype: None for x's dtype, with the given scale and zero point; or float32 or
    bfloat16, for which these two are not used. activation: none, relu, leaky_relu (with
    negative_slope), tanh, gelu, gelu_tanh or silu.
    Returns [..., N]. Quantized, without activation function:

        y = clamp(round((sum_k (x - zx) (w - zw)) * float32(sx sw / sy) + b / sy) + zy)

    with the sum in integers, rounding to nearest, ties to even, and saturation. With an
    activation function f, and for float outputs:

        v = f((sum_k (x - zx) (w - zw)) * float32(sx sw) + b)

    in float32, then quantized as above. A row of y depends on that row of x alone, bit for bit.

    Raises TypeError and ValueError that name the argument, its value and what was expected.
    """
    return _ops.linear.default(
        x, packed, output_scale, output_zero_point, output_dtype, activation, negative_slope
    )


def linear_int8(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    packed: Tensor,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype = torch.float32,
    activation: str = "none",
    negative_slope: float = 0.01,
    out: Tensor | None = None,
) -> Tensor:
    """`linear` for plain tensors.

    x: int8 or uint8 [..., K]; or float32 or bfloat16, which is quantized to int8 on the way:
    clamp(round(x * float32(1 / x_scale)) + x_zero_point). output_dtype: int8, uint8, float32 or
    bfloat16; the output's scale and zero point are for the first two. out: where to write, of
    shape [..., N] and any of these dtypes, instead of a new tensor of output_dtype; it may
    overlap x.
    """
    if out is None:
        return _ops.linear_int8.default(
            x, x_scale, x_zero_point, packed, output_scale, output_zero_point, output_dtype,
            activation, negative_slope,
        )  # fmt: skip
    _ops.linear_int8_out.default(
        x, x_scale, x_zero_point, packed, output_scale, output_zero_point, activation, negative_slope, out
    )
    return out


def linear_dynamic(
    x: Tensor,
    packed: Tensor,
    reduce_range: bool = False,
    output_dtype: torch.dtype | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:
    """`linear` for float activations, quantized with the scale and zero point of their range.

    x: float32 or bfloat16 [..., K]. reduce_range: 7 bits instead of 8, as PyTorch's own.
    output_dtype: float32 or bfloat16, None for x's. Scale and zero point are those of
    `torch.ops.quantized.linear_dynamic`, over all of x. Returns [..., N].

    Raises RuntimeError for NaN in x, with PyTorch's message.
    """
    return _ops.linear_dynamic.default(x, packed, reduce_range, output_dtype, activation, negative_slope)


def forbid_fallback(forbidden: bool = True) -> None:
    """Makes weights with a zero point that is not 0 an error, in `prepack` and in calls.

    ACL has no zero points of weights. The fallback: ACL multiplies with the weights as they
    are, and a pass over activations and products, with 32-bit integers, corrects the result.
    """
    _ops.forbid_fallback.default(forbidden)


def fallback_calls() -> int:
    """How many calls of this process used the fallback (see `forbid_fallback`)."""
    return _ops.fallback_calls.default()


# Fake kernels: shapes and dtypes. out_features is the packed weight's first size; the other
# depends on the CPU.


def _check_devices(**tensors: Tensor | None) -> None:
    """Fake kernels get real calls too, where one tensor is on the meta device."""
    (first, expected), *others = ((name, t.device) for name, t in tensors.items() if t is not None)
    for name, device in others:
        if device != expected:
            raise TypeError(f"{name} is on {device}, expected {expected}, as {first}")


def _like(x: Tensor, packed: Tensor, dtype: torch.dtype) -> Tensor:
    _check_devices(packed=packed, x=x)
    return x.new_empty((*x.shape[:-1], packed.shape[0]), dtype=dtype)


@torch.library.register_fake("acl_qlinear::prepack")
def _(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check_devices(weight=weight, bias=bias)
    return weight.new_empty((weight.shape[0], torch.library.get_ctx().new_dynamic_size()), dtype=torch.uint8)


@torch.library.register_fake("acl_qlinear::prepack_int8")
def _(weight: Tensor, scale: Tensor, zero_point: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    _check_devices(weight=weight, scale=scale, zero_point=zero_point, bias=bias)
    return weight.new_empty((weight.shape[0], torch.library.get_ctx().new_dynamic_size()), dtype=torch.uint8)


@torch.library.register_fake("acl_qlinear::unpack")
def _(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    context = torch.library.get_ctx()
    scales = context.new_dynamic_size()
    return (
        packed.new_empty((packed.shape[0], context.new_dynamic_size()), dtype=torch.int8),
        packed.new_empty((scales,), dtype=torch.float64),
        packed.new_empty((scales,), dtype=torch.int32),
        packed.new_empty((context.new_dynamic_size(),), dtype=torch.float32),
    )


@torch.library.register_fake("acl_qlinear::linear")
def _(
    x: Tensor, packed: Tensor, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None = None, activation: str = "none", negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    if output_dtype in (torch.float32, torch.bfloat16):
        return _like(x, packed, output_dtype)
    return torch._empty_affine_quantized(
        (*x.shape[:-1], packed.shape[0]), scale=output_scale, zero_point=output_zero_point, dtype=x.dtype,
        device=x.device,
    )  # fmt: skip


@torch.library.register_fake("acl_qlinear::linear_int8")
def _(
    x: Tensor, x_scale: float, x_zero_point: int, packed: Tensor, output_scale: float = 1.0,
    output_zero_point: int = 0, output_dtype: torch.dtype = torch.float32, activation: str = "none",
    negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, output_dtype)


@torch.library.register_fake("acl_qlinear::linear_int8_out")
def _(
    x: Tensor, x_scale: float, x_zero_point: int, packed: Tensor, output_scale: float, output_zero_point: int,
    activation: str, negative_slope: float, out: Tensor,
) -> None:  # fmt: skip
    _check_devices(packed=packed, x=x, out=out)


@torch.library.register_fake("acl_qlinear::linear_dynamic")
def _(
    x: Tensor, packed: Tensor, reduce_range: bool = False, output_dtype: torch.dtype | None = None,
    activation: str = "none", negative_slope: float = 0.01,
) -> Tensor:  # fmt: skip
    return _like(x, packed, output_dtype or x.dtype)
