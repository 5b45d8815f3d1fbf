# SPDX-License-Identifier: MIT
"""quantize(fuse=True): layers that compute the activation function after them, where that is certain."""

import copy
import functools
import io
import pickle
import types

import pytest
import torch
from helpers import activations_run
from torch import nn

import acl_qlinear

ACTIVATIONS = {
    "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.3), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
}  # fmt: skip
X = torch.randn(9, 24, generator=torch.Generator().manual_seed(3))
WAYS = {
    "tensor": {}, "row": {"granularity": "row"},
    "static": {"calibrate": lambda m: m(X.to(next(m.parameters()).dtype))},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_function(name, way):
    for dtype, precision in ((torch.float32, 1e-6), (torch.bfloat16, 2.0**-7), (torch.float16, 2.0**-10)):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(24, 40), copy.deepcopy(ACTIVATIONS[name])).to(dtype).eval()
        apart = acl_qlinear.quantize(model, **WAYS[way])
        fused = acl_qlinear.quantize(model, fuse=True, **WAYS[way])
        expected, none = activations_run(apart, X.to(dtype))
        y, seen = activations_run(fused, X.to(dtype))
        assert not none and seen == ["leaky_relu 0.3" if name == "leaky_relu" else name]
        assert type(model) is nn.Sequential and y.dtype == dtype
        torch.testing.assert_close(y, expected, rtol=precision, atol=precision * expected.abs().max().item())


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2, self.norm = nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24), nn.LayerNorm(24)


class Statements(Layers):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """A docstring."""
        hidden_states = self.fc1(hidden_states)
        h = self.act(hidden_states)
        return self.fc2(h)


class Nested(Layers):
    def forward(self, x):
        return self.norm(self.fc2(self.act(self.fc1(x))))


class Sub(nn.Sequential):
    """As nn.Sequential."""


@pytest.mark.parametrize("make", [
    Statements, Nested, lambda: nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24)),
    lambda: Sub(nn.Linear(24, 24), nn.GELU()), lambda: nn.Sequential(Statements(), nn.Tanh()),
])  # fmt: skip
def test_chains(make):
    torch.manual_seed(6)
    model = make().eval()
    apart, fused = acl_qlinear.quantize(model), acl_qlinear.quantize(model, fuse=True)
    expected, none = activations_run(apart, X)
    y, seen = activations_run(fused, X)
    assert not none and seen == ["gelu"] and isinstance(fused, type(model))
    torch.testing.assert_close(y, expected, rtol=1e-2, atol=1e-2)
    if isinstance(model, Statements):
        assert torch.equal(activations_run(fused, hidden_states=X)[0], y)


def decorated(forward):
    @functools.wraps(forward)
    def call(self, x):
        return forward(self, x) * 2

    return call


class OfValues(Layers):
    def forward(self, x, residual=None):
        h = self.fc1(x)
        if residual is None:
            residual = h
        return self.act(h) + residual


class Kept(Layers):
    def forward(self, x):
        self.before = self.fc1(x)
        return self.act(self.before)


class Twice(Layers):
    def forward(self, x):
        h = self.fc1(x)
        return self.act(h) + h


class Branch(Layers):
    def forward(self, x):
        h = self.fc1(x)
        return self.act(h) if self.training else h


class Skipping(Layers):
    def forward(self, x):
        h = self.fc1(x)
        h = self.act(x)
        return h


class Decorated(Layers):
    @decorated
    def forward(self, x):
        return self.act(self.fc1(x))


class Called(Nested):
    def __call__(self, x):
        return self.fc1(x)


class Shadowed(Nested):
    act = property(lambda self: torch.sin)


class Iterated(nn.Sequential):
    def __iter__(self):
        return iter([self[0]])


class Reads(Layers):
    def forward(self, x):
        while not isinstance(x, torch.Tensor):
            x = x[0]
        return self.act(self.fc1(x))


class Registered(Nested):
    def __init_subclass__(cls, **options):
        raise AssertionError("a class that nobody wrote")


class Pickled(Nested):
    def __getstate__(self):
        return self.__dict__


class Meta(type):
    """Of classes that know their subclasses."""


class OfMeta(Nested, metaclass=Meta):
    """With another metaclass."""


def own_forward():
    model = Nested()
    model.forward = types.MethodType(lambda self, x: self.fc1(x), model)
    return model


def with_hook(name):
    model = Nested()
    model.get_submodule(name).register_forward_hook(lambda *_: None)
    return model


APART = {
    "values": OfValues, "kept": Kept, "used twice": Twice, "a branch": Branch, "another value": Skipping,
    "a decorator": Decorated, "__call__": Called, "a property": Shadowed, "a loop": Reads,
    "__iter__": lambda: Iterated(nn.Linear(24, 24), nn.GELU()), "an own forward": own_forward,
    "a registry": Registered, "own pickling": Pickled, "a metaclass": OfMeta,
    "a hook of the layer": lambda: with_hook("fc1"), "a hook of the function": lambda: with_hook("act"),
    "another function": lambda: nn.Sequential(nn.Linear(24, 24), nn.ELU()),
    "no finite slope": lambda: nn.Sequential(nn.Linear(24, 24), nn.LeakyReLU(float("inf"))),
    "something between": lambda: nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24), nn.GELU()),
    "no layer": lambda: nn.Sequential(nn.GELU(), nn.LayerNorm(24)),
}  # fmt: skip


@pytest.mark.parametrize("what", APART)
def test_what_is_not_certain_stays_apart(what):
    torch.manual_seed(6)
    model = APART[what]().eval()
    apart, asked = acl_qlinear.quantize(model), acl_qlinear.quantize(model, fuse=True)
    (expected, _), (y, seen) = activations_run(apart, X), activations_run(asked, X)
    assert not seen
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


def mlp() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 5)).eval()


def test_parts_are_what_they_were():
    """For those who call, watch or slice them."""
    apart, fused = acl_qlinear.quantize(mlp()), acl_qlinear.quantize(mlp(), fuse=True)
    with torch.no_grad():
        assert torch.equal(fused[0](X), apart[0](X)) and torch.equal(fused[1](X), apart[1](X))
        assert torch.equal(fused[:1](X), apart[:1](X))
        x = X
        for part in fused:
            x = part(x)
        assert torch.equal(x, apart(X))
    handle = fused[0].register_forward_hook(lambda *_: None)
    assert activations_run(fused, X)[1] == ["relu"]
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert activations_run(fused, X)[1] == []
    handle.remove()
    assert activations_run(fused, X)[1] == ["gelu", "relu"]
    rows = acl_qlinear.compare(mlp(), fused, [X]).rows
    assert [row.name for row in rows] == ["0", "2", "4"] and all(row.within > 20 for row in rows)
    assert len(acl_qlinear.report(fused).replaced) == 3


def test_states_are_those_of_models_that_are_not_fused():
    apart, fused = acl_qlinear.quantize(mlp()), acl_qlinear.quantize(mlp(), fuse=True)
    expected = activations_run(fused, X)[0]
    fused.load_state_dict(apart.state_dict())
    apart.load_state_dict(fused.state_dict())
    assert torch.equal(activations_run(fused, X)[0], expected)
    assert acl_qlinear.quantize(fused, fuse=True, inplace=True) is fused


def test_copies():
    model = acl_qlinear.quantize(mlp(), fuse=True)
    expected = activations_run(model, X)[0]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False),
        torch.fx.symbolic_trace(model), torch.compile(model, backend="aot_eager", fullgraph=True),
        torch.export.export(model, (X,)).module(),
    ]  # fmt: skip
    with torch.no_grad():
        assert all(torch.equal(each(X), expected) for each in copies)
        assert all(type(each) is type(model) for each in copies[:3])
        # TorchScript has the original, which calls both.
        torch.testing.assert_close(torch.jit.script(model)(X), expected, rtol=1e-2, atol=1e-2)


def test_wrong_flag():
    with pytest.raises(TypeError, match="fuse is 'yes', expected True or False"):
        acl_qlinear.quantize(mlp(), fuse="yes")
