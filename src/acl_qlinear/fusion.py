# SPDX-License-Identifier: MIT
"""Modules that hand a linear layer's output to an activation function, and have the layer compute both.

Nothing changes but such a module's `forward`: its layers and functions stay as they are, for everybody else who calls
them, looks at them or saves them.
"""

import ast
import inspect
import math
import textwrap
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from .modules import CalibratedLinear, DynamicLinear

# transformers' classes of activation functions, by name, since transformers need not be there; and what our layers call
# the function. QuickGELU, ELU and others are none of theirs.
_OF_TRANSFORMERS = {
    "GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh", "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh", "SiLUActivation": "silu",
}  # fmt: skip
# A class that has one of these may not do what its forward says, or may not have subclasses that nobody wrote.
_SPECIAL = (
    "__call__", "__getattr__", "__getattribute__", "__iter__", "__init_subclass__", "__slots__", "__getstate__",
    "__reduce__", "__reduce_ex__", "__deepcopy__",
)  # fmt: skip


class Chain(NamedTuple):
    """A class's forward that calls one submodule after the other.

    Attributes:
        parameter: What it calls its argument.
        names: The submodules; none for nn.Sequential, which has all of its own.
    """

    parameter: str
    names: tuple[str, ...]


def fuse_activations(model: nn.Module) -> None:
    """Has layers compute the activation function after them, in modules whose `forward` is certain.

    That is nn.Sequential's, or calls submodules one after the other, each with the result of the one before and nothing
    else, as its source shows. No forward is called to find out.
    """
    for module in list(model.modules()):
        kind: Any = type(module)
        chain = _chain_of(kind)
        if chain is None or _is_patched(module):
            continue
        children = _children(module, chain.names)
        if None not in children and any(map(_fused_activation, children, children[1:])):
            module.__class__ = _fused_class(kind)


def is_fused(module: nn.Module) -> bool:
    """Whether `fuse_activations` has changed a module's class."""
    return isinstance(module, _Fused)


class _Fused:
    """What a class derives from, besides the one that it stands for."""

    _original: Any
    # A plain tuple: torch.compile of PyTorch 2.6 takes no other class attributes.
    _names: tuple[str, ...]
    __dict__: dict[str, Any]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (self._original,), dict(self.__dict__)

    def __prepare_scriptable__(self) -> Any:
        """TorchScript compiles the original's forward, which calls both."""
        plain = self._original.__new__(self._original)
        plain.__dict__.update(self.__dict__, _modules=dict(self.__dict__["_modules"]))
        return plain


def _new(original: type) -> Any:
    kind: Any = _fused_class(original)
    return kind.__new__(kind)


@cache
def _fused_class(original: Any) -> type:
    chain = _chain_of(original)
    assert chain is not None

    def forward(self: Any, input: Tensor) -> Tensor:
        return _run(self, input)

    # With the name that callers may use.
    code = forward.__code__.replace(co_varnames=("self", chain.parameter))
    members = {"_original": original, "_names": chain.names, "forward": FunctionType(code, globals(), "forward")}
    return type(f"Fused{original.__name__}", (_Fused, original), members)


def _children(module: Any, names: tuple[str, ...]) -> list[nn.Module | None]:
    return [module._modules.get(name) for name in names or module._modules]


def _run(module: Any, x: Tensor) -> Tensor:
    children: list[Any] = _children(module, module._names)
    is_watched = bool(
        everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks or everywhere._global_backward_pre_hooks
    )  # fmt: skip
    i = 0
    while i < len(children):
        child, i = children[i], i + 1
        activation = None if is_watched or i == len(children) else _fused_activation(child, children[i])
        if activation is None:
            x = child(x)
        else:
            x, i = child.activated(x, *activation), i + 1
    return x


def _fused_activation(layer: Any, following: Any) -> tuple[str, float] | None:
    """The name and slope of the activation function that `layer` may compute of what follows."""
    # In each call, so that hooks count from when they are there. In words that torch.compile of PyTorch 2.6 knows.
    kind = type(layer)
    if (kind is not DynamicLinear and kind is not CalibratedLinear) or layer.activation != "none":
        return None
    activation = _activation_of(following)
    return None if activation is None or _is_watched(layer) or _is_watched(following) else activation


def _activation_of(module: Any) -> tuple[str, float] | None:
    kind = type(module)
    if kind is nn.ReLU:
        return "relu", 0.01
    if kind is nn.GELU:
        return ("gelu" if module.approximate == "none" else "gelu_tanh"), 0.01
    if kind is nn.SiLU:
        return "silu", 0.01
    if kind is nn.Tanh:
        return "tanh", 0.01
    if kind is nn.LeakyReLU:
        return ("leaky_relu", module.negative_slope) if math.isfinite(module.negative_slope) else None
    if kind.__module__ == "transformers.activations" and kind.__name__ in _OF_TRANSFORMERS:
        return _OF_TRANSFORMERS[kind.__name__], 0.01
    return None


def _is_watched(module: Any) -> bool:
    """Whether something sees or changes what the module takes and returns."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    ) or _is_patched(module)


def _is_patched(module: nn.Module) -> bool:
    """Whether calls of it run something else than its class's forward."""
    return "forward" in module.__dict__ or module._compiled_call_impl is not None


@cache
def _chain_of(kind: Any) -> Chain | None:
    """What a class's forward does, if that is a chain."""
    forward = inspect.getattr_static(kind, "forward", None)
    own = [base for base in kind.__mro__ if base not in (nn.Module, nn.Sequential, object)]
    if type(kind) is not type or any(name in vars(base) for base in own for name in _SPECIAL):
        return None
    if forward is nn.Sequential.forward:
        return Chain("input", ())
    try:
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(forward))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    chain = _chain_in(function) if inspect.isfunction(forward) and isinstance(function, ast.FunctionDef) else None
    # A property of that name would come before the submodule.
    return chain if chain and not any(hasattr(kind, name) for name in chain.names) else None


def _chain_in(function: ast.FunctionDef) -> Chain | None:
    """The same of a function (self, x) that has nothing but `x = self.child(x)` in it, nested or not."""
    arguments = function.args
    if function.decorator_list or len(arguments.posonlyargs + arguments.args) != 2:
        return None
    if arguments.vararg or arguments.kwonlyargs or arguments.kwarg or arguments.defaults:
        return None
    this, parameter = (argument.arg for argument in arguments.posonlyargs + arguments.args)
    value, names = parameter, []

    def follow(node: ast.expr | None) -> bool:
        """Whether `node` is the value so far, or calls of submodules with it, which are added."""
        match node:
            case ast.Name(id=name):
                return name == value
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=child), args=[argument], keywords=[]) if (
                owner == this and follow(argument)
            ):
                names.append(child)
                return True
        return False

    *body, last = function.body[1:] if ast.get_docstring(function) else function.body
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node) if name != this and follow(node):
                value = name
            case _:
                return None
    return Chain(parameter, tuple(names)) if isinstance(last, ast.Return) and follow(last.value) and names else None
