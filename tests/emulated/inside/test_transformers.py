# SPDX-License-Identifier: MIT
"""Models of transformers', with random weights."""

import torch
import transformers
from helpers import activations_run

import acl_qlinear


def test_fused_activations():
    """Encoders whose activation function is a module of transformers'."""
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    models = {
        "gelu": transformers.BertModel(transformers.BertConfig(**small)),
        "gelu_tanh": transformers.BertModel(transformers.BertConfig(**small, hidden_act="gelu_new")),
        "silu": transformers.ViTModel(transformers.ViTConfig(**small, hidden_act="silu", image_size=32, patch_size=16)),
    }
    for name, model in models.items():
        given = torch.randn(1, 3, 32, 32) if name == "silu" else torch.arange(7)[None]
        expected, _ = activations_run(acl_qlinear.quantize(model.eval()), given)
        fused = acl_qlinear.quantize(model, fuse=True)
        y, seen = activations_run(fused, given)
        assert [each for each in seen if each != "tanh"] == [name] * 2
        torch.testing.assert_close(y.last_hidden_state, expected.last_hidden_state, rtol=0.02, atol=0.02)
        part, x = fused.encoder.layer[0].intermediate, torch.randn(5, 32)
        with torch.no_grad():
            assert torch.equal(torch.compile(part, backend="aot_eager", fullgraph=True)(x), part(x))


def test_structures_on_the_meta_device(tmp_path):
    """Rotary tables, tied embeddings and lists of positions come from the file, too."""
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    words = {"vocab_size": 50, **small}
    configs = {
        transformers.BertModel: transformers.BertConfig(**words),
        transformers.LlamaForCausalLM: transformers.LlamaConfig(**words, tie_word_embeddings=True),
        transformers.GPT2LMHeadModel: transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2),
        transformers.T5EncoderModel: transformers.T5Config(vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=2),
    }
    ids = torch.arange(7)[None]
    for kind, config in configs.items():
        torch.manual_seed(1)
        model = acl_qlinear.quantize(kind(config).eval())
        acl_qlinear.save_packed(model, tmp_path / "model")
        with torch.device("meta"):
            structure = kind(config).eval()
        loaded = acl_qlinear.load_packed(structure, tmp_path / "model")
        with torch.no_grad():
            assert torch.equal(loaded(ids)[0], model(ids)[0]), kind
