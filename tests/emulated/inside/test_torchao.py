# SPDX-License-Identifier: MIT
"""Models that torchao's quantize_ made: what is taken over, with torchao's own results, and what is not."""

import copy
import functools
import gc
import re
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from test_operators import ROWS, by_row, rows_of_every_size
from torch import nn
from torch.nn.utils import prune
from torchao import quantization as ao
from torchao.quantization import quant_primitives as primitives

import acl_qlinear

SYMMETRIC, ASYMMETRIC = ao.MappingType.SYMMETRIC, ao.MappingType.ASYMMETRIC
DYNAMIC = ao.Int8DynamicActivationInt8WeightConfig
# In fp16, torchao's own sums of larger values are infinite.
X = torch.randn(3, 7, 40, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 1, 7)[:, None]


# All ways to int8 activations by token. Version 1 makes LinearActivationQuantizedTensor, version 2 Int8Tensor.
BY_TOKEN = {
    f"{kind.name.lower()}, version {version}": DYNAMIC(act_mapping_type=kind, version=version)
    for version in (1, 2)
    for kind in (SYMMETRIC, ASYMMETRIC)
}
# What is left alone, and what is said of it.
REFUSED = {
    "weight only": (ao.Int8WeightOnlyConfig(), "torchao multiplies its weight with float activations"),
    "int4": (ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=ao.PerGroup(8)), ""),
    "decode": (
        DYNAMIC(weight_only_decode=True), "activations by _int8_symm_per_token_reduced_range_quant_noop_decode",
    ),
    "per tensor": (
        DYNAMIC(version=2, granularity=ao.PerTensor()), "finds its activations' scale with PerTensor, expected PerRow",
    ),
}  # fmt: skip


def float_model(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(40, 56), nn.GELU(), nn.Linear(56, 24, bias=False), nn.ReLU(), nn.Linear(24, 33))
    return nn.Sequential(*layers).eval().to(dtype)


def quantized(config: Any, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    model = float_model(dtype)
    ao.quantize_(model, config)
    return model


def float_weight(weight: torch.Tensor) -> torch.Tensor:
    return getattr(weight, "original_weight_tensor", weight).dequantize()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_quantized_as_torchao_does(kind, dtype):
    options, (mapping, *limits, eps) = ROWS[kind]
    packed = acl_qlinear.prepack_int8(torch.eye(16, dtype=torch.int8), torch.ones(1))
    x = rows_of_every_size(np.random.default_rng(18)).to(dtype)
    # With ranges that fp16 holds.
    x = x[x.abs().amax(dim=1) < (3e4 if dtype == torch.float16 else 3e38)]
    arguments = (x, primitives.MappingType[mapping], (1, 16), torch.int8, *limits, eps, torch.float32, torch.int8)
    scale, zero_point = primitives.choose_qparams_affine(*arguments)
    integers = primitives.quantize_affine(x, (1, 16), scale, zero_point, torch.int8, *limits)
    expected = primitives.dequantize_affine(
        integers, (1, 16), scale, zero_point, torch.int8, *limits, output_dtype=torch.float32
    )
    assert torch.equal(by_row(x, packed, output_dtype=torch.float32, **options), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", BY_TOKEN)
def test_activations_by_token(kind, dtype):
    theirs = quantized(BY_TOKEN[kind], dtype)
    before = [row.status for row in acl_qlinear.report(theirs).rows]
    assert before == ["can be replaced: convert(model) has not been called"] * 3
    ours = acl_qlinear.convert(theirs)
    assert len(acl_qlinear.report(ours).replaced) == 3 and not acl_qlinear.report(theirs).replaced
    with torch.no_grad():
        for name in ("0", "2", "4"):
            layer = theirs.get_submodule(name)
            x = (
                X.to(dtype)[..., : layer.in_features]
                if layer.in_features <= 40
                else X.to(dtype).repeat(1, 1, 2)[..., :56]
            )
            y, expected = ours.get_submodule(name)(x), layer(x)
            assert y.dtype == dtype and y.shape == expected.shape
            # In bf16, torchao rounds the products, and up to 0.17 the activations, too.
            size = expected.float().abs().amax(-1, keepdim=True)
            tolerance = 1e-6 if dtype == torch.float32 else 2.0**-6
            assert ((y.float() - expected.float()).abs() <= tolerance * size).all(), kind
        assert torch.equal(copy.deepcopy(ours)(X.to(dtype)), ours(X.to(dtype)))
    assert ours[0].weight.dtype == dtype and torch.equal(ours[0].weight.clone(), float_weight(theirs[0].weight))


def static(scale: torch.Tensor) -> Any:
    return ao.Int8StaticActivationInt8WeightConfig(scale, granularity=[ao.PerTensor(), ao.PerRow()])


def test_static():
    theirs = quantized(static(torch.tensor([[0.02]])))
    ours = acl_qlinear.convert(theirs)
    assert [type(layer) for layer in ours[::2]] == [acl_qlinear.CalibratedLinear] * 3
    x = torch.randn(9, 40)
    y, expected = ours[0](x), theirs[0](x)
    assert ((y - expected).abs() <= 1e-6 * expected.abs().amax(-1, keepdim=True)).all()


@pytest.mark.parametrize("elements", [1, 40])
@pytest.mark.parametrize("config", [static(torch.tensor([[0.02]])), DYNAMIC(version=2)])
def test_inputs_that_are_scaled_first(config, elements):
    """As torchao's SmoothQuant makes them."""
    theirs = quantized(config)
    theirs[0].weight.act_pre_scale = torch.logspace(-1, 1, elements)
    ours = acl_qlinear.convert(theirs)
    assert torch.equal(acl_qlinear.pre_scale(ours[0].packed), theirs[0].weight.act_pre_scale.expand(40))
    x = torch.randn(9, 40)
    y, expected = ours[0](x), theirs[0](x)
    assert ((y - expected).abs() <= 1e-6 * expected.abs().amax(-1, keepdim=True)).all()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_computes_something_else_is_left(kind):
    config, reason = REFUSED[kind]
    theirs = quantized(config)
    ours = acl_qlinear.convert(theirs)
    rows = acl_qlinear.report(ours).others
    assert len(rows) == 3 and all(reason in row.status and "torchao" in row.status for row in rows), rows
    assert torch.equal(ours(X), theirs(X))


class Subclass(nn.Linear):
    pass


def odd_layers() -> dict[str, tuple[Any, str]]:
    """What may be done to a layer of torchao's, and what is said of it."""

    def with_attributes(layer, config, part=lambda weight: weight, **attributes):
        layer.weight = nn.Parameter(torch.randn(33, 24))
        ao.quantize_(layer, config)
        vars(part(layer.weight)).update(attributes)

    def changed(layer, **attributes):
        with_attributes(layer, static(torch.tensor([[0.02]])), **attributes)

    def by_function(layer, function):
        layer.weight.input_quant_func = function

    return {
        "submodule": (lambda m: m.add_module("adapter", nn.Linear(2, 2)), "it has adapter, expected nothing besides"),
        "buffer": (lambda m: m.register_buffer("gain", torch.ones(1)), "it has gain, expected nothing besides"),
        "pruned bias": (lambda m: prune.random_unstructured(m, "bias", 0.5), "its bias is computed on each call"),
        "subclass": (lambda m: setattr(m, "__class__", Subclass), "a subclass of torch.nn.Linear"),
        "meta": (lambda m: m.to("meta"), "its weight is on meta, expected cpu"),
        "function": (lambda m: by_function(m, functools.partial(print)), r"by functools.partial\(<built-in"),
        "scale 0": (lambda m: changed(m, act_quant_scale=torch.zeros(1)), "x_scale is 0.0, expected a number from"),
        "NaN": (lambda m: changed(m, act_quant_scale=torch.full((1,), torch.nan)), "x_scale is nan, expected a number"),
        "small": (lambda m: changed(m, act_quant_scale=torch.full((1,), 1e-40)), "x_scale is .*e-41, expected a"),
        "zero point": (lambda m: changed(m, act_quant_zero_point=torch.tensor(300)), "x_zero_point is 300, expected"),
        "7 bits": (
            lambda m: with_attributes(m, DYNAMIC(version=2), lambda w: w.act_quant_kwargs, reduce_range=True),
            r"to 7 bits \(reduce_range\), expected 8",
        ),
        "pre-scale": (lambda m: changed(m, act_pre_scale=torch.ones(5)), r"act_pre_scale has shape \[5\], expected 1"),
        "NaN pre-scale": (lambda m: changed(m, act_pre_scale=torch.tensor(torch.nan)), "is nan, expected a"),
        "meta pre-scale": (lambda m: changed(m, act_pre_scale=torch.ones(24, device="meta")), "scale is on meta, exp"),
        "other form": (lambda m: delattr(m.weight, "input_quant_func"), "LinearActivationQuantizedTensor of a form"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", odd_layers())
def test_a_layer_that_is_not_as_others_is_left_alone_and_named(kind):
    change, reason = odd_layers()[kind]
    theirs = quantized(DYNAMIC(version=1))
    change(theirs[4])
    for replaced in ([], ["0", "2"]):
        report = acl_qlinear.report(theirs)
        row = next(row for row in report.rows if row.name == "4")
        assert re.search(reason, row.status), row
        assert [row.name for row in report.replaced] == replaced
        # In place, since not all of these can be copied.
        acl_qlinear.convert(theirs, inplace=True)


def test_quantize_leaves_layers_of_torchaos_and_says_so():
    theirs = quantized(DYNAMIC())
    with pytest.warns(UserWarning, match=r"0: torchao has quantized it: acl_qlinear\.convert takes it over"):
        ours = acl_qlinear.quantize(theirs)
    assert not acl_qlinear.report(ours).replaced


def test_nothing_of_the_old_layers_is_kept():
    theirs = quantized(DYNAMIC())
    old = weakref.ref(theirs[0])
    assert acl_qlinear.convert(theirs, inplace=True) is theirs
    gc.collect()
    assert old() is None and "in_features=40" in repr(theirs[0])
