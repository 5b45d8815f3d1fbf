# SPDX-License-Identifier: MIT
"""What ci/build.sh and ci/test.sh run."""
