# SPDX-License-Identifier: MIT
"""Threads, forks and memory."""

import ctypes
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Case
from torch import nn
from torch.utils.data import DataLoader, Dataset

import acl_qlinear

# What takes longer hangs: a call takes a millisecond, also when it is emulated.
SECONDS = 120


@contextmanager
def four_threads() -> Iterator[None]:
    """PyTorch on four threads, all of them started."""
    torch.set_num_threads(4)
    try:
        torch.randn(512, 512).sin()
        yield
    finally:
        torch.set_num_threads(1)


def fork(work: Callable[[], bool]) -> int:
    """A child that ends with status 0 where `work` returns True."""
    child = os.fork()
    if child == 0:
        status = 4
        try:
            status = 0 if work() else 3
        finally:
            os._exit(status)
    return child


def status_of(child: int, what: str) -> int:
    """A child's exit status."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError(f"{what} hangs")


def test_sixteen_python_threads_at_once():
    # Work for several threads.
    case = Case(33, 512, 384, "u8")
    dynamic = Case(33, 512, 384, "f32")
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
    # Work for several threads, and no tensor that PyTorch would divide among threads.
    case = Case(200, 128, 96, "u8")
    with four_threads():
        expected = case.run("u8")

        def work() -> bool:
            packed = acl_qlinear.prepack_int8(*acl_qlinear.unpack(case.packed))
            return torch.equal(case.run("u8"), expected) and torch.equal(packed, case.packed)

        assert status_of(fork(work), "the child") == 0
        # And the parent goes on.
        assert torch.equal(case.run("u8"), expected)


def in_newest_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns.

    Children that it forks may start threads. qemu aborts a child where a thread gets the number that
    another of its parent's threads had: they go up from the number of the thread that forked.
    """
    result = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join()
    return result[0]


X = torch.randn(200, 128, generator=torch.Generator().manual_seed(1))


def make_models() -> list[nn.Module]:
    """A dynamic and a static one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 32)).eval()
    return [acl_qlinear.quantize(model), acl_qlinear.quantize(model, calibrate=lambda m: m(X))]


MODELS: list[nn.Module] = []


def run_models(rows: int) -> list[torch.Tensor]:
    """MODELS on the first rows of X."""
    with torch.no_grad():
        return [model(X[:rows]) for model in MODELS]


def are_equal(these: list[torch.Tensor], those: list[torch.Tensor]) -> bool:
    return len(these) == len(those) == 2 and all(map(torch.equal, these, those))


class Calls(Dataset):
    """Samples that models make: of the first row, the first two rows, and so on."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return run_models(index + 1)


def called_again(samples: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Collates samples, beside what the models make of all rows."""
    return [*samples, run_models(len(X))]


@pytest.fixture
def models() -> Iterator[None]:
    MODELS[:] = make_models()
    yield
    MODELS.clear()


def test_data_loader_workers(models):
    """With the default start method; datasets and collate functions that call models."""
    # Python 3.14's default starts a program, which an emulated one cannot do.
    start = "fork" if "QEMU_CPU" in os.environ else None
    with four_threads():
        expected = [run_models(rows + 1) for rows in range(12)]
        whole = run_models(len(X))
        # A worker that hangs is an error of the loader's.
        options = {"num_workers": 2, "multiprocessing_context": start, "timeout": SECONDS}
        loader = DataLoader(Calls(), batch_size=4, collate_fn=called_again, **options)
        batches = in_newest_thread(lambda: list(loader))
        assert len(batches) == 3
        for number, (*samples, last) in enumerate(batches):
            assert all(map(are_equal, samples, expected[4 * number :])) and are_equal(last, whole)
        assert are_equal(run_models(len(X)), whole)


@pytest.mark.parametrize("when", ["before a call", "after a call"])
def test_forked_pools(when):
    """Pools that are made before the parent has a model, where each worker makes its own, and after its calls."""
    with four_threads():
        if when == "after a call":
            MODELS[:] = make_models()
            run_models(len(X))
        with in_newest_thread(lambda: multiprocessing.get_context("fork").Pool(2, initializer=prepare)) as pool:
            if when == "before a call":
                MODELS[:] = make_models()
            expected = [run_models(rows) for rows in (1, 7, 200) * 4]
            results = pool.map_async(run_models_to_numpy, (1, 7, 200) * 4, chunksize=1).get(timeout=SECONDS)
    MODELS.clear()
    for result, those in zip(results, expected, strict=True):
        assert are_equal([torch.from_numpy(y) for y in result], those)


def prepare() -> None:
    # PyTorch's own layers wait for ever for threads that fork() did not copy; ours do not.
    if not MODELS:
        torch.set_num_threads(1)
        MODELS[:] = make_models()


def run_models_to_numpy(rows: int) -> list[np.ndarray]:
    return [y.numpy() for y in run_models(rows)]


def test_preloaded_servers(models):
    """gunicorn's preload: the parent loads and calls, its forked workers answer on several threads each."""
    with four_threads():
        expected = {rows: run_models(rows) for rows in (1, 7, 200)}

        def serve() -> bool:
            right: list[bool] = []

            def answer(rows: int) -> None:
                right.extend(are_equal(run_models(rows), expected[rows]) for _ in range(5))

            threads = [threading.Thread(target=answer, args=(rows,)) for rows in (1, 7, 200) * 2]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return right == [True] * 30

        workers = in_newest_thread(lambda: [fork(serve) for _ in range(3)])
        assert [status_of(worker, f"worker {i}") for i, worker in enumerate(workers)] == [0, 0, 0]
        assert are_equal(run_models(200), expected[200])


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
