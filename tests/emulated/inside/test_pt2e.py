# SPDX-License-Identifier: MIT
"""PT2E: what pt2e.lower makes of quantized graphs."""

import os

import pytest
import torch
from torch import nn

import acl_qlinear
from acl_qlinear import pt2e

X = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(1))


def torchao():
    """convert_pt2e and its like, of torchao where it is installed; and a quantizer for linear layers."""
    if os.environ["TORCHAO"]:
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.quantization.pt2e.quantizer import arm_inductor_quantizer as quantizers

        return quantize_pt2e, quantizers.ArmInductorQuantizer, quantizers.get_default_arm_inductor_quantization_config
    from torch.ao.quantization import quantize_pt2e
    from torch.ao.quantization.quantizer import x86_inductor_quantizer as quantizers

    return quantize_pt2e, quantizers.X86InductorQuantizer, quantizers.get_default_x86_inductor_quantization_config


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_pt2e(is_dynamic):
    quantize_pt2e, quantizer, config = torchao()
    model = nn.Sequential(
        nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 17, bias=False), nn.GELU(), nn.Linear(17, 17), nn.SiLU(),
        nn.Linear(17, 3), nn.Tanh(),
    ).eval()  # fmt: skip
    exported = torch.export.export(model, (X,), strict=True).module()
    prepared = quantize_pt2e.prepare_pt2e(exported, quantizer().set_global(config(is_dynamic=is_dynamic)))
    prepared(X)
    converted = quantize_pt2e.convert_pt2e(prepared)
    expected = converted(X)
    assert len(acl_qlinear.report(converted).others) == 4
    lowered = pt2e.lower(converted)
    report = acl_qlinear.report(lowered)
    assert len(report.replaced) == 4 and not report.others, report
    # 8-bit steps of the last layers' input and output, at most.
    torch.testing.assert_close(lowered(X), expected, rtol=0, atol=0.01 * expected.abs().max().item())
    targets = [str(node.target) for node in lowered.graph.nodes if node.op == "call_function"]
    assert not any("aten.linear" in name or "dequantize" in name for name in targets[:-1]), targets
    assert not any(t.dtype == torch.int8 for t in (*lowered.buffers(), *vars(lowered).values()) if torch.is_tensor(t))
    torch._dynamo.reset()
    assert torch.equal(torch.compile(lowered, backend="aot_eager", fullgraph=True)(X), lowered(X))


def test_pt2e_leaves_other_layers_alone():
    exported = torch.export.export(nn.Sequential(nn.Linear(40, 24)), (X,), strict=True).module()
    before = exported(X)
    assert torch.equal(pt2e.lower(exported)(X), before)
    assert [row.kind for row in acl_qlinear.report(exported).others] == ["aten::linear"]
