# SPDX-License-Identifier: MIT
"""compare: the ratios are those of their definition, and lead to the layers that cost accuracy."""

import math

import pytest
import torch
from torch import nn

import acl_qlinear


class Model(nn.Module):
    """A layer with outliers, one that is called twice, one by keyword and one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last, self.unused = (nn.Linear(24, 24) for _ in range(4))
        with torch.no_grad():
            # Weights that are so large that little is left of the others, for an input that is 0.
            self.twice.weight[:, 3] *= 50
            for layer in (self.first, self.twice):
                layer.weight[3], layer.bias[3] = 0, 0

    def forward(self, x, scale=1.0):
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.twice(self.twice(x)))
        return {"y": self.last(input=x) * scale, "number": 3}


@pytest.fixture
def models():
    torch.manual_seed(0)
    model = Model().eval()
    return model, acl_qlinear.quantize(model)


def ratio(expected: torch.Tensor, got: torch.Tensor) -> float:
    expected, got = expected.double(), got.double()
    return 10 * math.log10(expected.square().sum() / (got - expected).square().sum())


def test_ratios_are_those_of_the_definition(models):
    model, ours = models
    inputs = [torch.randn(7, 24), (torch.randn(2, 3, 24), 2.0), {"x": torch.randn(1, 24), "scale": 0.5}]
    comparison = acl_qlinear.compare(model, ours, inputs)
    assert [row.name for row in comparison.rows] == ["first", "twice", "last", "unused"]
    x = torch.cat([inputs[0], inputs[1][0].reshape(6, 24), inputs[2]["x"]])
    alone = torch.cat([ours.first(inputs[0]), ours.first(inputs[1][0]).reshape(6, 24), ours.first(inputs[2]["x"])])
    with torch.no_grad():
        assert comparison.rows[0].alone == pytest.approx(ratio(model.first(x), alone))
        # Nothing is before it.
        assert comparison.rows[0].within == comparison.rows[0].alone
        calls = [(inputs[0], 1.0), inputs[1], (inputs[2]["x"], 0.5)]
        outputs = [torch.cat([m(*call)["y"].reshape(-1, 24) for call in calls]) for m in models]
        assert comparison.output == pytest.approx(ratio(*outputs))
    assert comparison.rows[2].within < comparison.rows[2].alone
    assert math.isnan(comparison.rows[3].alone) and math.isnan(comparison.rows[3].within)


def test_the_worst_layer_is_the_one_to_skip(models):
    model, ours = models
    inputs = [torch.randn(50, 24)]
    comparison = acl_qlinear.compare(model, ours, inputs)
    assert comparison.worst(1) == ["twice"] and len(comparison.worst(9)) == 3
    better = acl_qlinear.compare(model, acl_qlinear.quantize(model, skip=comparison.worst(1)), inputs)
    assert "twice" not in [row.name for row in better.rows] and better.output > comparison.output + 6


def test_table_and_picture(models, tmp_path):
    comparison = acl_qlinear.compare(*models, [torch.randn(9, 24)])
    lines = str(comparison).splitlines()
    assert lines[0].split() == ["layer", "alone", "in", "the", "model"] and lines[4].split() == ["unused", "nan", "nan"]
    assert lines[2].split() == ["twice", f"{comparison.rows[1].alone:.1f}", f"{comparison.rows[1].within:.1f}"]
    assert f"{comparison.output:.1f}" in lines[-1] and max(map(len, lines)) < 100
    comparison.save_plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["layers.png"]


def test_encoders_static_models_and_a_single_layer():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 16)
    ours = acl_qlinear.quantize(encoder, calibrate=lambda m: m(x), types=())
    comparison = acl_qlinear.compare(encoder, ours, [x])
    assert len(comparison.rows) == 4 and all(20 < row.within <= row.alone + 6 for row in comparison.rows)
    layer = nn.Linear(16, 4).half().eval()
    comparison = acl_qlinear.compare(layer, acl_qlinear.quantize(layer), iter([x.half()]))
    assert comparison.rows[0].name == "" and comparison.output == comparison.rows[0].alone
    exact = nn.Linear(2, 2, bias=False).eval()
    nn.init.eye_(exact.weight)
    zeros = acl_qlinear.compare(exact, acl_qlinear.quantize(exact), [torch.zeros(3, 2)])
    assert zeros.output == math.inf and "inf" in str(zeros)


class Changing(nn.Module):
    """Calls its layer as often as `calls` says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 2

    def forward(self, x):
        for _ in range(self.calls):
            x = self.layer(x)
        return x


def test_models_that_cannot_be_compared(models):
    model, ours = models
    x = [torch.randn(2, 24)]
    table = [
        (lambda: acl_qlinear.compare(3, ours, x), TypeError, "model is a int, expected a torch.nn.Module"),
        (lambda: acl_qlinear.compare(model, ours, []), ValueError, "inputs is empty, expected one or more"),
        (lambda: acl_qlinear.compare(model, model, x), ValueError, "int8_model has no int8 layers"),
        (lambda: acl_qlinear.compare(ours, ours, x), ValueError, "has layer first, expected a float one of that name"),
        (
            lambda: acl_qlinear.compare(nn.Linear(24, 24).train(), ours, x), ValueError,
            r"float_model is in training mode, expected float_model.eval\(\)",
        ),
    ]  # fmt: skip
    for call, error, message in table:
        with pytest.raises(error, match=message):
            call()
    for calls, word in ((1, "less"), (3, "more")):
        float_model = Changing().eval()
        int8_model = acl_qlinear.quantize(float_model)
        int8_model.calls = calls
        with pytest.raises(ValueError, match=f"layer layer is called {word} often in int8_model"):
            acl_qlinear.compare(float_model, int8_model, [torch.randn(2, 4)])
        assert not float_model.layer._forward_hooks and not int8_model.layer._forward_hooks
