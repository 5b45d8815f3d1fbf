# SPDX-License-Identifier: MIT
"""The checkout, the cache, and what is built."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acl-qlinear"
# What is built: elsewhere, where the checkout cannot be written to.
DIST = Path(os.environ.get("ACL_QLINEAR_DIST") or ROOT / "dist").absolute()
