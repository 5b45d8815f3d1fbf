# SPDX-License-Identifier: MIT
"""Linear layers whose output an activation function takes, which the layer can compute itself."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The class of an activation function, by its full name, since transformers need not be there; and what our layers
# call the function. QuickGELU, ELU and others are none of theirs.
_ACTIVATIONS = {
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.LeakyReLU": "leaky_relu",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.GELU": "gelu",
    "transformers.activations.GELUActivation": "gelu",
    "transformers.activations.NewGELUActivation": "gelu_tanh",
    "transformers.activations.GELUTanh": "gelu_tanh",
    "transformers.activations.PytorchGELUTanh": "gelu_tanh",
    "transformers.activations.SiLUActivation": "silu",
}


class Fusion(NamedTuple):
    """A layer and the activation function after it.

    Attributes:
        parent: The module that has both, and calls one with what the other returns.
        child: The name of the activation function in `parent`.
        activation: As our layers call it.
        negative_slope: Of leaky_relu.
    """

    parent: nn.Module
    child: str
    activation: str
    negative_slope: float


class Fused(nn.Module):
    """In the place of an activation function that the layer before it computes.

    A state_dict has it, so that a model without it does not load as this one, nor this one as such a model.
    """

    fused: Tensor

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("fused", torch.tensor(True, device="cpu"))

    def forward(self, input: Tensor) -> Tensor:
        """Returns `input`."""
        return input

    def extra_repr(self) -> str:
        return self.activation


def fusions(model: nn.Module) -> dict[nn.Module, Fusion]:
    """The linear layers of a model whose output goes into an activation function, and nowhere else.

    A layer counts where torch.fx can trace the module that has both, whose `forward` calls each of them once. Neither
    may have hooks, nor another place in the model.
    """
    places: dict[nn.Module, int] = {}
    for parent in model.modules():
        for child in parent._modules.values():
            if child is not None:
                places[child] = places.get(child, 0) + 1
    found: dict[nn.Module, Fusion] = {}
    for parent in model.modules():
        children = [child for child in parent._modules.values() if child is not None and places[child] == 1]
        if any(isinstance(child, nn.Linear) for child in children) and any(map(_activation_of, children)):
            found |= {
                linear: fusion
                for linear, fusion in _of_parent(parent).items()
                if {linear, parent._modules[fusion.child]} <= set(children)
            }
    return found


def apply_activation(y: Tensor, activation: str, negative_slope: float) -> Tensor:
    """The activation function of one of our layers, as PyTorch computes it."""
    match activation:
        case "relu":
            return F.relu(y)
        case "leaky_relu":
            return F.leaky_relu(y, negative_slope)
        case "tanh":
            return torch.tanh(y)
        case "gelu":
            return F.gelu(y)
        case "gelu_tanh":
            return F.gelu(y, approximate="tanh")
        case "silu":
            return F.silu(y)
    return y


def _activation_of(module: nn.Module) -> str | None:
    kind = type(module)
    name = _ACTIVATIONS.get(f"{kind.__module__}.{kind.__qualname__}")
    if name == "gelu" and getattr(module, "approximate", "none") == "tanh":
        name = "gelu_tanh"
    return None if _is_changed(module) else name


def _is_changed(module: nn.Module) -> bool:
    """Whether something sees or changes what the module takes and returns."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, name) for name in hooks)


def _of_parent(parent: nn.Module) -> dict[nn.Module, Fusion]:
    """The fusions among a module's children."""
    try:
        nodes = list(_Tracer().trace(_shallow_copy(parent)).nodes)
    except Exception:
        # Its forward depends on values, or takes what is no tensor: nothing is known.
        return {}
    targets = [node.target for node in nodes if node.op == "call_module"]
    found = {}
    for node in nodes:
        linear = parent._modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(linear, nn.Linear) or _is_changed(linear) or len(node.users) != 1:
            continue
        (user,) = node.users
        is_call = user.op == "call_module" and user.args == (node,) and not user.kwargs
        child = parent._modules.get(user.target) if is_call else None
        activation = _activation_of(child) if child is not None else None
        if activation and targets.count(node.target) == targets.count(user.target) == 1:
            slope = float(getattr(child, "negative_slope", 0.01))
            found[linear] = Fusion(parent, user.target, activation, slope)
    return found


class _Tracer(torch.fx.Tracer):
    """Sees the calls of a module's submodules, not what these do."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _shallow_copy(module: nn.Module) -> nn.Module:
    """The same submodules and tensors, in a module whose attributes `forward` may set."""
    copied = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers"):
        copied.__dict__[name] = dict(module.__dict__[name])
    return copied
