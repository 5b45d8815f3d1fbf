# SPDX-License-Identifier: MIT
"""A BERT encoder in int8, per channel, statically and dynamically: how close to fp32, and at what cost.

The model is BERT-tiny (google/bert_uncased_L-2_H-128_A-2) with random weights from a fixed
seed, so nothing is downloaded. Needs the package transformers. On AArch64 it reports time; under
qemu with the project's counter plugin, instructions and modelled Neoverse V1 cycles.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.ao.quantization as tq
from torch import nn
from transformers import BertConfig, BertModel

import acl_qlinear
from acl_qlinear.bench.meters import Clock, Counters

CONFIG = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
TOKENS = 32


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return BertModel(BertConfig(**CONFIG), add_pooling_layer=False).eval()


def random_tokens(seed: int, count: int) -> torch.Tensor:
    return torch.randint(1000, 30000, (count, TOKENS), generator=torch.Generator().manual_seed(seed))


def calibrate(model: nn.Module) -> None:
    model(random_tokens(1, count=4))


def pytorch_static(model: nn.Module) -> nn.Module:
    """PyTorch's own static quantization: every linear layer between a quantization and its inverse."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                wrapper = tq.QuantWrapper(child)
                wrapper.qconfig = tq.get_default_qconfig("x86")
                setattr(parent, name, wrapper)
    tq.prepare(model, inplace=True)
    with torch.no_grad():
        calibrate(model)
    return tq.convert(model, inplace=True)


def engines() -> dict[str, Callable[[], nn.Module]]:
    return {
        "fp32": make_model,
        "PyTorch int8 dynamic": lambda: tq.quantize_dynamic(make_model(), {nn.Linear: tq.per_channel_dynamic_qconfig}),
        "PyTorch int8 static": lambda: pytorch_static(make_model()),
        "acl_qlinear dynamic": lambda: acl_qlinear.quantize(make_model()),
        "acl_qlinear static": lambda: acl_qlinear.quantize(make_model(), calibrate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counters", type=Path, help="file that the counter plugin writes to")
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*quant_min.*|.*reduce_range.*")
    torch.set_num_threads(1)
    meter = Counters(options.counters) if options.counters else Clock()
    tokens = random_tokens(2, count=1)
    results: dict[str, dict[str, float]] = {}
    expected = None
    print(f"{'BERT-tiny, ' + str(TOKENS) + ' tokens':24}{'cosine':>9}{meter.measure:>24}{'of fp32':>9}")
    for name, make in engines().items():
        model = make()
        with torch.no_grad():
            y = model(tokens).last_hidden_state
            expected = y if expected is None else expected
            cosine = nn.functional.cosine_similarity(y.flatten(), expected.flatten(), 0).item()
            cost = meter.costs({name: lambda model=model: model(tokens)})[name]
        results[name] = {"cosine": cosine, **cost}
        ratio = cost[meter.measure] / results["fp32"][meter.measure]
        print(f"{name:24}{cosine:9.5f}{cost[meter.measure]:24,.6g}{ratio:9.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
