# SPDX-License-Identifier: MIT
"""What a linear layer costs on this machine: ours, PyTorch's own int8 one, and fp32, side by side.

`python -m acl_qlinear.bench` runs the engines on the same inputs in one process, taking turns,
and prints a table. On AArch64 the measure is time. Under qemu with the project's counter plugin
(`--counters`, see ci/guest_counters.c) it is guest instructions and modelled Neoverse V1 cycles,
which repeat exactly; they are no times.

cases         the layers that are compared, their inputs, and how far ours is from exact
meters        the two ways to measure a call
workloads     what is measured: shapes, kinds and thread counts, by the names of presets
report        tables; comparison of two reports
plot          the picture
speed_limits  what the packages promise of their speed
"""
