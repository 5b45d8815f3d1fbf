"""int8 linear layers for PyTorch on AArch64, on Arm Compute Library.

`Linear.from_torch(module)` makes, of a linear layer that PyTorch quantized
statically and per tensor, one that computes the same on ACL; `prepack` and
`linear` are the operators below it.
"""

from ._build import VERSION as __version__
from ._load import load

load()

from .modules import Linear, LinearReLU  # noqa: E402  (the operators must exist first)
from .ops import linear, linear_relu, prepack  # noqa: E402

__all__ = ["Linear", "LinearReLU", "__version__", "linear", "linear_relu", "prepack"]
