# SPDX-License-Identifier: MIT
"""Checkpoints in compressed-tensors' format, as llm-compressor writes them: what is taken over, and what is not."""

import copy
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from compressed_tensors import quantization as ct
from compressed_tensors.compressors import ModelCompressor
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

import acl_qlinear

IGNORED = ["lm_head", "model.layers.1.mlp.down_proj"]
INT8 = {"num_bits": 8, "type": "int"}
CHANNEL = {**INT8, "strategy": "channel"}
TOKEN = {**INT8, "strategy": "token", "dynamic": True}
TENSOR = {**INT8, "strategy": "tensor"}
# Weights, activations, and whether the embedding is the last layer's weight, too.
TAKEN = {
    "by token": (CHANNEL, TOKEN, True),
    "by token, asymmetric": (CHANNEL, {**TOKEN, "symmetric": False}, False),
    "static": (CHANNEL, TENSOR, True),
    "static, asymmetric": (CHANNEL, {**TENSOR, "symmetric": False}, False),
    "weights by tensor": (TENSOR, TOKEN, True),
    "asymmetric weights": ({**CHANNEL, "symmetric": False}, TOKEN, True),
}
# What is left alone, and what is said of it.
REFUSED = {
    "weight only": (CHANNEL, None, "multiplies its weight with float activations, expected int8"),
    "groups": ({**INT8, "strategy": "group", "group_size": 8}, TOKEN, "weight has a scale for each group, expected"),
    "4 bits": ({**CHANNEL, "num_bits": 4}, TOKEN, "quantizes its weight to int4, expected int8"),
    "float8": ({**CHANNEL, "type": "float"}, {**TOKEN, "type": "float"}, "its weight to float8, expected int8"),
    "dynamic by tensor": (CHANNEL, {**TENSOR, "dynamic": True}, "its input has a scale for each tensor, expected"),
    "4 bits of input": (CHANNEL, {**TOKEN, "num_bits": 4}, "quantizes its input to int4, expected int8"),
    "input alone": (None, TOKEN, "leaves its weight float, expected int8"),
}
X = torch.randn(3, 7, 48, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 1, 7)[:, None]


def scheme(weights: Any, inputs: Any, **more: Any) -> ct.QuantizationScheme:
    return ct.QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs, **more)


def calibrate(layer: nn.Linear) -> None:
    """Gives a layer what llm-compressor finds: scales and zero points of weights, and of a static input."""
    weights, inputs = layer.quantization_scheme.weights, layer.quantization_scheme.input_activations
    if weights is not None:
        weight = layer.weight.detach()
        if weights.strategy == "group":
            weight = weight.reshape(len(weight), -1, weights.group_size)
        extremes = weight.aminmax() if weights.strategy == "tensor" else weight.aminmax(dim=-1)
        scale, zero_point = ct.utils.calculate_qparams(extremes[0], extremes[1], weights)
        layer.weight_scale.data.copy_(scale.reshape(layer.weight_scale.shape))
        layer.weight_zero_point.data.copy_(zero_point.reshape(layer.weight_zero_point.shape))
    if inputs is not None and not inputs.dynamic:
        layer.input_scale.data.fill_(0.02)
        layer.input_zero_point.data.fill_(0 if inputs.symmetric else -7)


def apply(model: nn.Module, weights: Any, inputs: Any, ignore: list[str], dtype: str = "int-quantized") -> None:
    config = ct.QuantizationConfig(
        config_groups={"all": scheme(weights, inputs)}, ignore=ignore, format=dtype, quantization_status="frozen"
    )
    ct.apply_quantization_config(model, config)
    for layer in model.modules():
        if hasattr(layer, "quantization_scheme"):
            calibrate(layer)


def frozen(kind: str) -> LlamaForCausalLM:
    """A model that was quantized, and not saved."""
    weights, inputs, is_tied = TAKEN[kind]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=is_tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    apply(model, weights, inputs, IGNORED if is_tied else IGNORED[1:])
    return model


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes a checkpoint, as llm-compressor does."""
    compressor = ModelCompressor.from_pretrained_model(model)
    model.save_pretrained(folder, state_dict=compressor.compress(model), max_shard_size="20KB")
    compressor.update_config(folder)


@pytest.fixture(scope="module", params=TAKEN)
def checkpoint(request, tmp_path_factory) -> tuple[str, Path]:
    """A kind, and a folder with a model of it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save(frozen(request.param), folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return request.param, folder


def load(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


def layers(model: nn.Module) -> list[str]:
    return [row.name for row in acl_qlinear.report(model).rows if row.status.startswith("can be replaced")]


def assert_same(ours: nn.Module, theirs: nn.Module, names: list[str]) -> None:
    """A layer's results are compressed-tensors', but for values of its input that may become one integer or the next.

    In fp32 these are ties, such as the largest of a row, 127.5 steps of its scale: compressed-tensors divides, and
    others multiply with a reciprocal. In 16 bits, compressed-tensors' steps are as coarse as half an integer.
    """
    with torch.no_grad():
        for name in names:
            layer, our_layer = theirs.get_submodule(name), ours.get_submodule(name)
            dtype = layer.weight_scale.dtype
            x = X[..., : layer.in_features].to(dtype)
            y, expected = our_layer(x), layer(x)
            assert y.dtype == expected.dtype == dtype
            inputs = layer.quantization_scheme.input_activations
            if inputs.dynamic:
                scale, zero_point = ct.utils.compute_dynamic_scales_and_zp(x, inputs, layer)
            else:
                scale, zero_point = layer.input_scale, getattr(layer, "input_zero_point", torch.zeros(1))
            steps = (x.float() / scale.float() + zero_point).clamp(-128, 127)
            error_of_steps = {torch.float32: 1e-4, torch.float16: 0.07, torch.bfloat16: 0.6}[dtype]
            is_open = ((steps - steps.floor()) - 0.5).abs() < error_of_steps
            slack = (is_open * scale.float()) @ our_layer.weight.float().abs().T
            rounding = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
            size = expected.float().abs().amax(-1, keepdim=True)
            assert ((y.float() - expected.float()).abs() <= 1.01 * slack + rounding * size).all(), name
            if dtype == torch.float32:
                assert is_open.float().mean() < 0.03


def test_checkpoint(checkpoint):
    kind, folder = checkpoint
    is_tied = TAKEN[kind][2]
    theirs, ours = load(folder), load(folder)
    names = layers(theirs)
    assert len(names) == (13 if is_tied else 14)
    assert acl_qlinear.convert(ours, inplace=True) is ours
    assert [row.name for row in acl_qlinear.report(ours).replaced] == names
    assert_same(ours, theirs, names)
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == is_tied
    ids = torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        expected = theirs(ids).logits
        assert (ours(ids).logits - expected).abs().max() <= 0.02 * expected.abs().max()
    # Prompts, then single tokens, with the same packed weights.
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(ours.generate(ids, **options), theirs.generate(ids, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_checkpoint_in_16_bits(checkpoint, dtype):
    _, folder = checkpoint
    theirs = load(folder, dtype)
    ours = acl_qlinear.convert(theirs)
    assert_same(ours, theirs, layers(theirs))


def codes(model: nn.Module) -> dict[str, torch.Tensor]:
    ours = acl_qlinear.convert(model)
    names = [row.name for row in acl_qlinear.report(ours).replaced]
    return {name: acl_qlinear.unpack(ours.get_submodule(name).packed)[0] for name in names}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_float_again(checkpoint, dtype):
    """After a first call, or loaded so: with the codes that the checkpoint has; in float32, before saving, too."""
    kind, folder = checkpoint
    called = load(folder, dtype)
    expected = codes(called)
    with torch.no_grad():
        called(torch.arange(5)[None])
    others = [called, load(folder, dtype, quantization_config=CompressedTensorsConfig(run_compressed=False))]
    for model in [*others, frozen(kind)] if dtype == torch.float32 else others:
        assert model.model.layers[0].self_attn.q_proj.weight.dtype == dtype
        found = codes(model)
        assert found.keys() == expected.keys() and len(found) > 12
        for name, values in found.items():
            # bf16 does not tell all of 255 steps from one another.
            exact = dtype != torch.bfloat16 or kind != "asymmetric weights"
            assert (values.int() - expected[name].int()).abs().max() <= (0 if exact else 1), name


def test_a_copy_leaves_the_model_as_it_was(checkpoint):
    theirs = load(checkpoint[1])
    names = layers(theirs)
    ours = acl_qlinear.convert(theirs)
    assert layers(theirs) == names and not layers(ours)
    layer, old = ours.get_submodule(names[0]), theirs.get_submodule(names[0])
    assert not any(name.startswith("quantization") or name == "compressor" for name in vars(layer))
    assert layer.weight.dtype == torch.float32
    weight = (old.weight.float() - getattr(old, "weight_zero_point", torch.zeros(1)).float()) * old.weight_scale
    assert torch.allclose(layer.weight.clone(), weight, atol=0, rtol=1e-6)
    x = X[..., :32]
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def one_layer(weights: Any, inputs: Any, **more: Any) -> nn.Sequential:
    """A layer with a bias, compressed in memory."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 24), nn.ReLU()).eval()
    model[0].quantization_scheme = scheme(weights, inputs, **more)
    ct.initialize_module_for_quantization(model[0])
    calibrate(model[0])
    model[0].quantization_status = ct.QuantizationStatus.FROZEN
    if weights and weights.get("type") == "int" and weights["num_bits"] == 8:
        ct.compress_quantized_weights(model[0])
    return model


@pytest.mark.parametrize("kind", REFUSED)
def test_what_computes_something_else_is_left(kind):
    weights, inputs, reason = REFUSED[kind]
    theirs = one_layer(weights, inputs)
    ours = acl_qlinear.convert(theirs)
    (row,) = acl_qlinear.report(ours).rows
    assert reason in row.status and type(ours[0]) is nn.Linear
    with pytest.warns(UserWarning, match="0: compressed-tensors has quantized it: acl_qlinear.convert takes it over"):
        acl_qlinear.quantize(theirs)


def forward_of_somebody(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x


class Subclass(nn.Linear):
    pass


# What may be done to a layer of compressed-tensors', and what is said of it.
ODD = {
    "output": (lambda m: setattr(m.quantization_scheme, "output_activations", ct.QuantizationArgs()), "its output"),
    "off": (lambda m: setattr(m, "quantization_enabled", False), "expected quantization_enabled = True"),
    "calibration": (
        lambda m: setattr(m, "quantization_status", ct.QuantizationStatus.CALIBRATION),
        "its quantization is calibration, expected compressed, frozen or decompressed",
    ),
    "float weight": (lambda m: setattr(m.weight, "data", m.weight.float()), "weight is torch.float32, expected torch."),
    "no scale": (lambda m: delattr(m, "weight_scale"), "form of compressed-tensors' format is not known here"),
    "forward": (lambda m: setattr(m, "forward", MethodType(forward_of_somebody, m)), "forward was replaced by another"),
    "submodule": (lambda m: m.add_module("adapter", nn.Linear(2, 2)), "it has adapter, expected nothing besides"),
    "subclass": (lambda m: setattr(m, "__class__", Subclass), "that compressed-tensors quantized: make it a torch.nn"),
    "meta": (lambda m: m.to("meta"), "is on meta, expected cpu"),
    "scale 0": (lambda m: m.input_scale.data.zero_(), "x_scale is 0.0, expected a number from"),
    "NaN": (lambda m: m.weight_scale.data.fill_(torch.nan), "nan"),
    "fp64": (lambda m: m.double(), "its weight is torch.float64, expected torch.float32"),
    "two scales": (lambda m: setattr(m.input_scale, "data", torch.ones(2)), "input has 2 static scales, expected 1"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_layer_that_is_not_as_others_is_left_alone_and_named(kind):
    change, reason = ODD[kind]
    theirs = one_layer(CHANNEL, TENSOR)
    assert len(layers(theirs)) == 1
    change(theirs[0])
    (row,) = [row for row in acl_qlinear.report(theirs).rows if row.name == "0"]
    assert reason in row.status, row
    acl_qlinear.convert(theirs, inplace=True)
    assert not acl_qlinear.report(theirs).replaced


class Allocations(TorchDispatchMode):
    """Notes the largest float tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.largest = max(self.largest, value.numel())
        return result


def test_no_float_copy_of_a_weight_is_made():
    theirs = one_layer(CHANNEL, TOKEN)
    with Allocations() as during:
        acl_qlinear.convert(theirs, inplace=True)
    # Scales and bias.
    assert 0 < during.largest <= 24 and len(acl_qlinear.report(theirs).replaced) == 1
