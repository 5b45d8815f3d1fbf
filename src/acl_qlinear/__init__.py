# SPDX-License-Identifier: MIT
"""int8 linear layers for PyTorch on AArch64, on Arm Compute Library.

`quantize(model)` makes the linear layers of an fp32 model int8; `convert(model)` takes over
those that PyTorch, torchao or llm-compressor has quantized. `compare` tells what that costs in accuracy.
`Linear`, `DynamicLinear` and `CalibratedLinear` are the layers, `prepack`, `linear` and their
like the operators below them.
"""

from ._build import VERSION as __version__
from ._load import load

load()

# The operators must exist first.
from . import observers  # noqa: E402
from .comparison import Comparison, LayerComparison, compare  # noqa: E402
from .conversion import convert, quantize  # noqa: E402
from .modules import CalibratedLinear, DynamicLinear, Linear, PackedLinear  # noqa: E402
from .ops import (  # noqa: E402
    add,
    fallback_calls,
    forbid_fallback,
    linear,
    linear_dynamic,
    linear_int8,
    pre_scale,
    prepack,
    prepack_int8,
    unpack,
)
from .packed_files import load_packed, save_packed  # noqa: E402
from .reports import LayerStatus, Report, report  # noqa: E402

__all__ = [
    "CalibratedLinear", "Comparison", "DynamicLinear", "LayerComparison", "LayerStatus", "Linear", "PackedLinear",
    "Report", "__version__", "add", "compare", "convert", "fallback_calls", "forbid_fallback", "linear",
    "linear_dynamic", "linear_int8", "load_packed", "observers", "pre_scale", "prepack", "prepack_int8", "quantize",
    "report", "save_packed", "unpack",
]  # fmt: skip
