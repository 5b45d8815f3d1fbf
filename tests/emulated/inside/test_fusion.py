# SPDX-License-Identifier: MIT
"""quantize(fuse=True): layers that compute the activation function after them, where that is certain."""

import copy
import importlib.util
import io
import pickle

import pytest
import torch
from torch import nn

import acl_qlinear
from acl_qlinear.fusion import Fused

ACTIVATIONS = {
    "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.3), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
}  # fmt: skip
X = torch.randn(9, 24, generator=torch.Generator().manual_seed(3))
WAYS = {
    "tensor": {},
    "row": {"granularity": "row"},
    "static": {"calibrate": lambda m: m(X.to(next(m.parameters()).dtype))},
}


def activations_of(model: nn.Module) -> list[str]:
    return [m.activation for m in model.modules() if isinstance(m, acl_qlinear.modules.PackedLinear)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_function(name, way):
    for dtype, precision in ((torch.float32, 1e-6), (torch.bfloat16, 2.0**-7), (torch.float16, 2.0**-10)):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(24, 40), copy.deepcopy(ACTIVATIONS[name])).to(dtype).eval()
        with torch.no_grad():
            apart = acl_qlinear.quantize(model, **WAYS[way])
            fused = acl_qlinear.quantize(model, fuse=True, **WAYS[way])
            expected = apart(X.to(dtype))
            y = fused(X.to(dtype))
        assert activations_of(apart) == ["none"] and activations_of(fused) == [name]
        assert [type(m) for m in model] == [nn.Linear, type(ACTIVATIONS[name])]
        assert y.dtype == dtype
        torch.testing.assert_close(y, expected, rtol=precision, atol=precision * expected.abs().max().item())


class Called(nn.Module):
    """A layer and an activation function, called by a function of them."""

    def __init__(self, forward, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear, self.activation, self.call = nn.Linear(24, 24), activation or nn.GELU(), forward

    def forward(self, x):
        return self.call(self, x)


class Untraceable(Called):
    def forward(self, x):
        return self.activation(self.linear(x)) if x.sum() > -1e9 else x


def hooked(attribute: str) -> nn.Module:
    model = Called(lambda m, x: m.activation(m.linear(x)))
    model.get_submodule(attribute).register_forward_hook(lambda *_: None)
    return model


def shared() -> nn.Module:
    activation = nn.ReLU()
    return nn.Sequential(nn.Linear(24, 24), activation, nn.LayerNorm(24), activation)


def tied() -> nn.Module:
    linear = nn.Linear(24, 24)
    return nn.Sequential(nn.Sequential(linear, nn.ReLU()), nn.Sequential(linear, nn.Tanh()))


APART = {
    "another use of the output": lambda: Called(lambda m, x: m.activation(y := m.linear(x)) + y),
    "two calls": lambda: Called(lambda m, x: m.activation(m.linear(m.linear(x)))),
    "two functions": lambda: Called(lambda m, x: m.activation(m.activation(m.linear(x)))),
    "something between": lambda: Called(lambda m, x: m.activation(m.linear(x) * 2)),
    "the function first": lambda: Called(lambda m, x: m.linear(m.activation(x))),
    "the output returned, too": lambda: Called(lambda m, x: (y := m.linear(x), m.activation(y))[1] + y),
    "a function of another kind": lambda: Called(lambda m, x: m.activation(m.linear(x)), nn.ELU()),
    "a forward that depends on values": lambda: Untraceable(None),
    "a hook of the layer": lambda: hooked("linear"),
    "a hook of the function": lambda: hooked("activation"),
    "a function in two places": shared,
    "a layer in two places": tied,
}


@pytest.mark.parametrize("what", APART)
def test_what_is_not_certain_stays_apart(what):
    torch.manual_seed(6)
    model = APART[what]().eval()
    with torch.no_grad():
        apart, asked = acl_qlinear.quantize(model), acl_qlinear.quantize(model, fuse=True)
        assert set(activations_of(asked)) == {"none"} and not any(isinstance(m, Fused) for m in asked.modules())
        assert torch.equal(asked(X), apart(X))


def test_forward_that_keeps_what_it_sees():
    """Tracing leaves nothing behind."""

    def forward(m, x):
        m.last = m.linear(x)
        return m.activation(x)

    model = Called(forward).eval()
    model.last = None
    acl_qlinear.quantize(model, fuse=True, inplace=True)
    assert model.last is None


def mlp() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 5)).eval()


def test_copies():
    model = acl_qlinear.quantize(mlp(), fuse=True)
    with torch.no_grad():
        expected = model(X)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        copies = [
            copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False),
            torch.jit.script(model), torch.fx.symbolic_trace(model),
            torch.compile(model, backend="aot_eager", fullgraph=True),
        ]  # fmt: skip
        assert all(torch.equal(each(X), expected) for each in copies)
        other = acl_qlinear.quantize(mlp(), fuse=True)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(X), expected)
    assert activations_of(model) == ["gelu", "relu", "none"] and str(model[1]) == "Fused(gelu)"


def test_states_of_the_other_kind_are_refused():
    fused, apart = acl_qlinear.quantize(mlp(), fuse=True), acl_qlinear.quantize(mlp())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*1\.fused"):
        apart.load_state_dict(fused.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*1\.fused"):
        fused.load_state_dict(apart.state_dict())


def test_compare_sees_the_function():
    model = mlp()
    rows = acl_qlinear.compare(model, acl_qlinear.quantize(model, fuse=True), [X]).rows
    assert [row.name for row in rows] == ["0", "2", "4"] and all(row.within > 20 for row in rows)


def test_wrong_flag():
    with pytest.raises(TypeError, match="fuse is 'yes', expected True or False"):
        acl_qlinear.quantize(mlp(), fuse="yes")


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="transformers is in PyTorch 2.9's prefix")
def test_transformers():
    """Encoders whose activation function is a module of transformers'."""
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    models = {
        "gelu": transformers.BertModel(transformers.BertConfig(**small)),
        "gelu_tanh": transformers.BertModel(transformers.BertConfig(**small, hidden_act="gelu_new")),
        "silu": transformers.ViTModel(transformers.ViTConfig(**small, hidden_act="silu", image_size=32, patch_size=16)),
    }
    for name, model in models.items():
        fused = acl_qlinear.quantize(model.eval(), fuse=True)
        assert [each for each in activations_of(fused) if each not in ("none", "tanh")] == [name] * 2
        given = torch.randn(1, 3, 32, 32) if name == "silu" else torch.arange(7)[None]
        with torch.no_grad():
            expected, y = (each(given).last_hidden_state for each in (acl_qlinear.quantize(model), fused))
        torch.testing.assert_close(y, expected, rtol=0.02, atol=0.02)
