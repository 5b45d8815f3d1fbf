# SPDX-License-Identifier: MIT
"""Compiles an int8 model ahead of time, into a package that C++ programs run without Python.

    python examples/aot_inductor.py model.pt2

prints the path of the library with our operators. examples/aot_inductor.cpp runs the package; its first lines say how
it is compiled. Needs a C++ compiler, in CXX or as g++.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import acl_qlinear

TOKENS, FEATURES = 7, 64


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 256), nn.GELU(), nn.Linear(256, FEATURES))
    return acl_qlinear.quantize(model.eval(), granularity="row")


def example_input(tokens: int) -> torch.Tensor:
    """What the C++ program makes, too: [tokens, FEATURES], from -1 to 1."""
    return torch.linspace(-1, 1, tokens * FEATURES).reshape(tokens, FEATURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the file to write: its name ends in .pt2")
    package = parser.parse_args().package
    tokens = torch.export.Dim("tokens", min=2, max=512)
    exported = torch.export.export(make_model(), (example_input(TOKENS),), dynamic_shapes=({0: tokens},))
    # GCC 12 crashes on SVE's types in precompiled headers.
    options = {"aot_inductor.precompile_headers": False}
    torch._inductor.aoti_compile_and_package(exported, package_path=str(package), inductor_configs=options)
    (library,) = [path for path in torch.ops.loaded_libraries if "acl_qlinear" in path]
    print(library)


if __name__ == "__main__":
    main()
