# SPDX-License-Identifier: MIT
"""torch.compile with inductor, PyTorch's compiler: whole graphs, sizes that change, results of eager."""

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch._inductor.utils import run_and_get_cpp_code
from transformers import BertConfig, BertModel

import acl_qlinear

X = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    # In a folder `tests`, since hypothesis draws constants from all other modules that are loaded: all tests that
    # came after these, in this prefix alone, had other examples.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "tests"))
    # GCC 12 crashes on SVE's types in precompiled headers.
    monkeypatch.setattr(torch._inductor.config, "cpp_cache_precompile_headers", False)
    torch._dynamo.reset()


def close(y: torch.Tensor, expected: torch.Tensor) -> bool:
    """Inductor fuses what is between our layers, and rounds differently there: a value may become the next integer."""
    return (y - expected).abs().max() <= 0.02 * expected.abs().max()


def calibrate(model: nn.Module) -> None:
    model(X.to(next(iter(model.state_dict().values())).dtype))


WAYS = [{}, {"granularity": "row"}, {"calibrate": calibrate}, {"calibrate": calibrate, "smooth": 0.5}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", WAYS)
def test_layers_alone_are_the_same(options, dtype):
    """Nothing is between them that could round differently."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(40, 24), nn.Linear(24, 17, bias=False)).eval().to(dtype), X.to(dtype)
    ours = acl_qlinear.quantize(model, **options)
    compiled = torch.compile(ours, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (x, x[:, :4].contiguous(), torch.randn(3, 7, 40, dtype=dtype)):
            assert torch.equal(compiled(rows), ours(rows))


def test_cpp_wrapper_calls_the_operators_itself():
    """Not through Python, which it does for operators with strings: ten times the cost of a small layer."""
    torch.manual_seed(0)
    layers = [nn.Linear(40, 24).eval(), nn.Linear(24, 24).eval(), nn.Linear(24, 17).eval()]
    ways = [{}, {"granularity": "row"}, {"calibrate": lambda layer: layer(torch.randn(9, 24))}]
    ours = nn.Sequential(
        *(acl_qlinear.quantize(nn.Sequential(one), **way) for one, way in zip(layers, ways, strict=True))
    )
    compiled = torch.compile(ours, fullgraph=True, options={"cpp_wrapper": True})
    with torch.no_grad():
        y, code = run_and_get_cpp_code(compiled, X)
        assert torch.equal(y, ours(X))
    assert code.count('aoti_torch_call_dispatcher("acl_qlinear::') == 3 and "custom_op_wrapper" not in code


@pytest.mark.parametrize(
    ("options", "grad"), [({"granularity": "row"}, True), ({"calibrate": lambda m: m(torch.arange(64)[None])}, False)]
)
def test_bert(options, grad):
    """A converted model of transformers': no graph breaks, and one graph for sentences of every length."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=1, hidden_size=64, num_attention_heads=2, intermediate_size=96, vocab_size=99)
    model = BertModel(config, add_pooling_layer=False).eval()
    ours = acl_qlinear.quantize(model, **options)
    assert len(acl_qlinear.report(ours).replaced) == 6
    with torch.set_grad_enabled(grad):
        tokens = [torch.randint(99, size) for size in ((2, 8), (3, 17), (5, 11))]
        # It raises where a graph would break.
        compiled = torch.compile(ours, fullgraph=True, dynamic=True)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for each in tokens:
                y, expected = compiled(each).last_hidden_state, ours(each).last_hidden_state
                assert close(y, expected) and y.requires_grad == grad
