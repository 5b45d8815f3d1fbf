# SPDX-License-Identifier: MIT
"""What LibTorch's stable ABI leaves to Python: the types of errors, gradients, and what out= may be.

The builds for one PyTorch do the same in src/csrc/torch/aten. There, these functions change nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._load import BUILD


def completed(operator: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function that calls an operator: raises the errors that are documented, in place of RuntimeError."""

    def complete(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                y = function(*args, **kwargs)
            except RuntimeError as error:
                raise _typed(error) from None
            if forward_ad._current_level >= 0:
                _check_forward_gradient(operator, *args, *kwargs.values())
            # torch.fx's proxies have no answer.
            if isinstance(y, Tensor) and y.requires_grad:
                x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
                sizes = f"in_features={x.shape[-1]}, out_features={y.shape[-1]}"
                return _NoGradient.apply(y, x, f"acl_qlinear::{operator} ({sizes})")
            return y

        return call if BUILD.stable_abi else function

    return complete


def completed_layer(operator: str) -> Callable[[type], type]:
    """Decorates a layer whose `forward` calls an operator, in the same way."""

    def complete(kind: Any) -> type:
        # Not its `forward`, which TorchScript compiles. Not its `__call__` either, which adds 6 % to a small call
        # to look for what `layer.compile()` made: a layer is one operator, of which it makes the same.
        if BUILD.stable_abi:
            kind.__call__ = completed(operator)(kind._call_impl)
            if hasattr(kind, "activated"):
                kind.activated = completed(operator)(kind.activated)
        return kind

    return complete


def completed_write(write: Callable[..., None]) -> Callable[..., None]:
    """Returns acl_qlinear::linear_int8_out with its checks of x and out, the first and the last argument."""
    if not BUILD.stable_abi:
        return write
    name = "acl_qlinear::linear_int8_out"

    def call(x: Tensor, *args: Any) -> None:
        out = args[-1]
        if not (isinstance(x, Tensor) and isinstance(out, Tensor)):
            write(x, *args)  # An error of PyTorch's.
            return
        _check_forward_gradient("linear_int8_out", x, out)
        if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
            raise RuntimeError(
                f"{name}: x or out requires grad, expected neither with out=: call it in torch.no_grad()"
            )
        if out.is_neg() or out.is_conj():
            raise TypeError(
                f"acl_qlinear::linear_int8: out is a {'negative' if out.is_neg() else 'conjugate'} view, expected a "
                "tensor that holds its values: resolve_neg() and resolve_conj() make one"
            )
        # Below autograd, whose fallback for operators without a derivative is not made for out=.
        version = out._version
        with torch.no_grad():
            write(x.resolve_neg(), *args)
        # Where out is not contiguous, a copy has counted.
        if out._version == version:
            torch.autograd.graph.increment_version(out)

    return call


class _NoGradient(torch.autograd.Function):
    """y, with an error in place of its gradient with respect to x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, x: Tensor, layer: str) -> Tensor:
        # What is y itself could not be written to.
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        _, x, ctx.layer = inputs
        ctx.in_features = x.shape[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, torch.ops.acl_qlinear.no_gradient(gradient, ctx.in_features, ctx.layer), None


def _check_forward_gradient(operator: str, *values: Any) -> None:
    if any(forward_ad.unpack_dual(value).tangent is not None for value in values if isinstance(value, Tensor)):
        raise NotImplementedError(
            f"acl_qlinear::{operator} has no derivative, since its layers are for inference: differentiate the float "
            "model, or detach() the layer's input"
        )


def _typed(error: RuntimeError) -> Exception:
    """The error that the text of one from C++ begins with."""
    text = str(error)
    for kind in (TypeError, ValueError):
        if text.startswith(prefix := f"{kind.__name__}: "):
            return kind(text.removeprefix(prefix))
    return error
