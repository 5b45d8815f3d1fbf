# SPDX-License-Identifier: MIT
"""The cache: folders are whole, or not there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aclpkg.base import cache
from aclpkg.base.messages import CiError


def test_cached_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)

    def fail(target: Path) -> None:
        (target / "half").touch()
        raise CiError("no")

    with pytest.raises(CiError):
        cache.cached_dir("thing", ["input"], fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    made = cache.cached_dir("thing", ["input"], lambda target: (target / "whole").touch())
    assert (made / "whole").exists()
    assert cache.cached_dir("thing", ["input"], fail) == made
    assert cache.cached_dir("thing", ["other input"], lambda target: None) != made


DOWNLOAD = """
import sys, time
from aclpkg.base import cache
from pathlib import Path
def make(target):
    (target / "first half").touch()
    print("begun", flush=True)
    if "slow" in sys.argv:
        time.sleep(60)
    (target / "second half").touch()
print(*sorted(p.name for p in cache.cached_dir("download", [], make).iterdir()), sep=",")
"""


def test_interrupted_download_begins_again(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    words = [sys.executable, "-c", DOWNLOAD]
    process = subprocess.Popen([*words, "slow"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("acl-qlinear/download-????????????????"))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "begun\nfirst half,second half\n"
