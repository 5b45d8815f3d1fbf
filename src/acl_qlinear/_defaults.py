# SPDX-License-Identifier: MIT
"""PyTorch's defaults for new tensors, which a process may have changed."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU, whatever torch.set_default_dtype and set_default_device said.

    torch.ao's observers calculate in the default dtype: in bfloat16, scales are off by some percent.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    # Under torch.device every operation goes through Python: HistogramObserver's search takes twice as long.
    # PyTorch 2.6's get_default_device does not see `with torch.device(…)`.
    is_plain = torch.empty(0).device.type == "cpu"
    try:
        with contextlib.nullcontext() if is_plain else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
