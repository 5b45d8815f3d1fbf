# SPDX-License-Identifier: MIT
"""A packed weight or bias as a reader of a float layer expects it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .ops import pre_scale, unpack

_READ_ONLY = (
    "the weight or bias of an int8 layer was to be changed, and it is read-only: change the float layer "
    "before acl_qlinear.quantize, or call load_state_dict"
)
# What a view knows without being computed.
_KNOWN = {
    Tensor.dtype.__get__, Tensor.shape.__get__, Tensor.device.__get__, Tensor.ndim.__get__, Tensor.layout.__get__,
    Tensor.requires_grad.__get__, Tensor.is_leaf.__get__, Tensor.grad.__get__, Tensor.is_meta.__get__,
    Tensor.is_cuda.__get__, Tensor.is_quantized.__get__, Tensor.is_sparse.__get__, Tensor.is_nested.__get__,
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement, Tensor.element_size, Tensor.is_floating_point,
    Tensor.is_complex, Tensor.__len__,
}  # fmt: skip


def dequantized_weight(packed: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if packed.is_meta:
        return packed.new_empty(shape, dtype=dtype)
    weight, scale, zero_point, _ = unpack(packed)
    values = (weight - zero_point[:, None]) * scale.float()[:, None]
    return (values if (columns := pre_scale(packed)) is None else values * columns).to(dtype)


def unpacked_bias(packed: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    bias = None if packed.is_meta else unpack(packed)[3]
    return packed.new_empty(shape, dtype=dtype) if bias is None else bias.to(dtype)


def _operator(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function as an operator for compilers, who know no shapes of what `unpack` returns."""
    schema = "(Tensor packed, int[] shape, ScalarType dtype) -> Tensor"
    operator = torch.library.custom_op(f"acl_qlinear_layers::{name}", function, mutates_args=(), schema=schema)
    operator.register_fake(lambda packed, shape, dtype: packed.new_empty(shape, dtype=dtype))
    return operator


float_weight = _operator("float_weight", dequantized_weight)
float_bias = _operator("float_bias", unpacked_bias)


class FloatView(Tensor):
    """A weight or bias that is computed when an operation uses it.

    Its shape, dtype and device cost nothing. An operation gets a new tensor with the values. It is
    read-only: an operation that changes it raises RuntimeError.
    """

    _compute: Callable[[], Tensor]

    @staticmethod
    def __new__(cls, compute: Callable[..., Tensor], packed: Tensor, shape: Sequence[int], dtype: torch.dtype):
        view = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=packed.device)
        view._compute = lambda: compute(packed, shape, dtype)
        return view

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None) -> Any:
        if func in _KNOWN:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        # Still a view, so that a change of it is an error, too.
        if func in (Tensor.detach, Tensor.data.__get__):
            return args[0]
        if func == Tensor.data.__set__:
            raise RuntimeError(_READ_ONLY)
        return _call(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None) -> Any:
        return _call(func, args, kwargs)


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """`func` of the values of all views among its arguments."""
    computed: list[tuple[Tensor, int]] = []

    def compute(view: FloatView) -> Tensor:
        # Tensors of inference mode do not count their changes.
        with torch.inference_mode(False), torch.no_grad():
            values = view._compute()
        computed.append((values, values._version))
        return values

    args, kwargs = tree_map_only(FloatView, compute, (args, kwargs or {}))
    result = func(*args, **kwargs)
    if any(values._version != version for values, version in computed):
        raise RuntimeError(_READ_ONLY)
    return result
