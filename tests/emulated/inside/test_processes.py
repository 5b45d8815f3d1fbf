# SPDX-License-Identifier: MIT
"""Threads, forks and memory."""

import ctypes
import os
import resource
import threading
from pathlib import Path

import numpy as np
import torch
from helpers import Case

import acl_qlinear


def test_sixteen_python_threads_at_once():
    case = Case(33, 256, 128, "u8")
    dynamic = Case(33, 256, 128, "f32")
    expected = case.run("u8")
    expected_dynamic = {M: acl_qlinear.linear_dynamic(dynamic.x[:M], dynamic.packed) for M in (1, 4, 9, 33)}
    results: list[bool] = []
    start = threading.Barrier(16)

    def work(M: int) -> None:
        start.wait()
        for _ in range(5):
            results.append(torch.equal(case.run("u8", x=case.x[:M]), expected[:M]))
            results.append(torch.equal(acl_qlinear.linear_dynamic(dynamic.x[:M], dynamic.packed), expected_dynamic[M]))

    for intra_op in (1, 4):
        torch.set_num_threads(intra_op)
        threads = [threading.Thread(target=work, args=(M,)) for M in (1, 4, 9, 33) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    torch.set_num_threads(1)
    assert results == [True] * 2 * 16 * 5 * 2


def test_calls_after_fork():
    """In a child of a process whose OpenMP threads have run, where libgomp would wait for them for ever."""
    case = Case(200, 64, 96, "u8")
    torch.set_num_threads(4)
    try:
        expected = case.run("u8")
        child = os.fork()
        if child == 0:
            ok = torch.equal(case.run("u8"), expected)
            packed = acl_qlinear.prepack_int8(*acl_qlinear.unpack(case.packed))
            os._exit(0 if ok and torch.equal(packed, case.packed) else 3)
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            threading.Event().wait(0.1)
        else:
            os.kill(child, 9)
            raise AssertionError("the child hangs")
        assert os.waitstatus_to_exitcode(status) == 0
        # And the parent goes on.
        assert torch.equal(case.run("u8"), expected)
    finally:
        torch.set_num_threads(1)


def threads_of_process() -> int:
    return len(os.listdir("/proc/self/task"))


def test_set_num_threads_is_obeyed():
    """Threads are PyTorch's own: set_num_threads(4) starts three, for our layer and PyTorch's together."""
    case = Case(400, 256, 256, "u8")
    case.run("u8")
    before = threads_of_process()
    try:
        torch.set_num_threads(4)
        case.run("u8")
        after_ours = threads_of_process()
        torch.randn(512, 512).sin()
        after_both = threads_of_process()
    finally:
        torch.set_num_threads(1)
    assert after_ours == after_both and after_ours > 1
    # Earlier tests may have started them already.
    assert before <= after_ours <= 4 + before


def cpu_times() -> dict[str, int]:
    """Clock ticks that each thread of this process has had."""
    times = {}
    for task in os.listdir("/proc/self/task"):
        fields = Path(f"/proc/self/task/{task}/stat").read_text().rsplit(")", 1)[1].split()
        times[task] = int(fields[11]) + int(fields[12])
    return times


def test_one_thread_means_one_thread():
    """After set_num_threads(1) no other thread works for us."""
    case = Case(96, 768, 768, "u8")
    torch.set_num_threads(4)
    case.run("u8")
    torch.set_num_threads(1)
    # OpenMP's threads spin a moment before they sleep.
    threading.Event().wait(1)
    before = cpu_times()
    for _ in range(40):
        case.run("u8")
    worked = {task for task, time in cpu_times().items() if time - before.get(task, 0) > 5}
    assert worked == {str(threading.get_native_id())}


def test_a_thousand_different_M_do_not_grow_memory():
    case = Case(1000, 96, 64, "u8")
    for M in np.random.default_rng(0).permutation(1000)[:50] + 1:
        case.run("f32", x=case.x[:M])
    case.run("f32")
    before = resident_bytes()
    for M in range(1, 1001):
        case.run("f32", x=case.x[:M])
        case.run("u8", x=case.x[:M])
    # One packed copy per M would be 6 MB; a call's own memory is bounded by its tiles.
    assert resident_bytes() - before < 2 << 20


def resident_bytes() -> int:
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
