# SPDX-License-Identifier: MIT
"""The documents: they build as a site, and what they say of this repository is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
API = [
    "quantize", "convert", "save_packed", "load_packed", "report", "Report", "compare", "Comparison", "pt2e.lower",
    "Linear", "DynamicLinear", "CalibratedLinear", "prepack", "linear", "prepack_int8", "linear_int8",
    "linear_dynamic", "unpack", "add", "forbid_fallback", "fallback_calls", "reference.linear",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CONTRIBUTING.md builds it, with warnings as errors."""
    target = tmp_path_factory.mktemp("site")
    words = [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "-f", ROOT / "docs/site/mkdocs.yml"]
    done = subprocess.run(
        [*words, "--site-dir", target], env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_site_has_every_document(site: Path) -> None:
    pages = {page.stem for page in site.glob("*.html")} - {"404"}
    expected = {document.stem.lower() for document in DOCUMENTS} - {"readme"} | {"index"}
    assert pages == expected


def test_site_fetches_nothing(site: Path) -> None:
    texts = [file.read_text() for file in site.rglob("*") if file.suffix in (".html", ".css")]
    assert len(texts) > 10
    for text in texts:
        assert not re.findall(r'src="(?:https?:)?//[^"]*|<link [^>]*href="https?://[^"]*|url\((?:https?:)?//', text)


def test_site_has_the_public_api(site: Path) -> None:
    page = (site / "api.html").read_text()
    missing = [name for name in API if not re.search(rf'id="acl_qlinear\.(\w+\.)?{re.escape(name)}"', page)]
    assert not missing


def test_first_screen_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_figures_of_the_first_screen_are_those_of_speed() -> None:
    """README's table of MiniLM has the rows of docs/speed.md's, but for fp32: the worst cosines, and shares."""

    def rows(file: str, columns: int) -> list[list[str]]:
        cells = [line.strip("| ").split(" | ") for line in (ROOT / file).read_text().splitlines()]
        return [row for row in cells if len(row) == columns and row[1].startswith("0.9")]

    known = [[row[2], *re.findall(r"\((.*?)\)", " ".join(row[5:]))] for row in rows("docs/speed.md", 8)]
    assert len(known) == 7 and [row[1:] for row in rows("README.md", 5)] == known


def test_named_tests_exist() -> None:
    tests = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    for document in DOCUMENTS:
        # A file, or a glob of names, is none.
        for name in re.findall(r"`(test_\w+)`", document.read_text()):
            assert name in tests, f"{document.name}: {name}"


def test_licence_is_one() -> None:
    """The recipes take src/LICENSE, since their source is the folder src/."""
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "src/LICENSE").read_bytes()


def test_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "src/pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_package_has_its_types() -> None:
    """scikit-build-core puts the package's folder into the wheel whole, except what is excluded."""
    build = tomllib.loads((ROOT / "src/pyproject.toml").read_text())["tool"]["scikit-build"]
    assert (ROOT / "src/acl_qlinear/py.typed").read_bytes() == b""
    assert build["wheel"]["packages"] == ["acl_qlinear"] and "py.typed" not in str(build["wheel"]["exclude"])
