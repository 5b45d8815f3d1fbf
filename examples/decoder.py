# SPDX-License-Identifier: MIT
"""A small decoder in int8: what a prompt costs, and each token after it, with the same packed weights.

The model has the configuration of JackFram/llama-68m and random weights from a fixed seed, so nothing is downloaded.
Needs the package transformers. On AArch64 it reports time; under qemu with the project's counter plugin, modelled
Neoverse V1 cycles.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import acl_qlinear
from acl_qlinear.bench.meters import Clock, Counters

CONFIG = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12,
    "vocab_size": 32000,
}  # fmt: skip
PROMPT, NEW = 16, 3


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()


def ways(model: nn.Module) -> dict[str, Callable[[], nn.Module]]:
    return {
        "fp32": lambda: model,
        "acl_qlinear dynamic": lambda: acl_qlinear.quantize(model),
        "acl_qlinear per token": lambda: acl_qlinear.quantize(model, granularity="row"),
    }


def packed_weights(model: nn.Module) -> dict[str, int]:
    """Where each layer's packed weight is."""
    return {
        name: layer.packed.data_ptr()
        for name, layer in model.named_modules()
        if isinstance(layer, acl_qlinear.PackedLinear)
    }


def costs_of(model: nn.Module, prompt: torch.Tensor, meter: Counters | Clock) -> dict[str, float]:
    """What the prompt costs, and a token after it."""
    cache = model(prompt, use_cache=True).past_key_values

    def one_token() -> None:
        model(prompt[:, :1], past_key_values=cache, use_cache=True)
        cache.crop(PROMPT)

    calls = {"prompt": lambda: model(prompt, use_cache=True), "token": one_token}
    return {name: cost[meter.measure] for name, cost in meter.costs(calls).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counters", type=Path, help="file that the counter plugin writes to")
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    meter = Counters(options.counters) if options.counters else Clock()
    prompt = torch.randint(CONFIG["vocab_size"], (1, PROMPT), generator=torch.Generator().manual_seed(1))
    print(f"llama-68m, a prompt of {PROMPT} tokens, and one token after it; {meter.measure}")
    print(f"{'':22}{'cosine':>9}{'prompt':>16}{'token':>16}")
    results: dict[str, dict[str, Any]] = {}
    expected = torch.empty(0)
    for name, make in ways(make_model()).items():
        model = make()
        before = packed_weights(model)
        with torch.inference_mode():
            logits = model(prompt).logits
            expected = logits if name == "fp32" else expected
            padding = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0}
            tokens = model.generate(prompt, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, **padding)
            results[name] = {
                "cosine": nn.functional.cosine_similarity(logits, expected, dim=-1).min().item(),
                "tokens": tokens[0].tolist(),
                **costs_of(model, prompt, meter),
                "packed once": packed_weights(model) == before,
            }
        row = results[name]
        print(f"{name:22}{row['cosine']:9.4f}{row['prompt']:16,.6g}{row['token']:16,.6g}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
