# SPDX-License-Identifier: MIT
"""What mkdocs needs to show the documents of the checkout's root, too, and the style beside this file."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Their names in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=with_site_links((ROOT / name).read_text())))
    files.append(File.generated(config, "LICENSE", abs_src_path=str(ROOT / "LICENSE")))
    files.append(File.generated(config, "style.css", abs_src_path=str(HERE / "style.css")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return with_site_links(markdown)


def with_site_links(markdown: str) -> str:
    """Links between files of the checkout, as links between pages of the site."""

    def site_link(match: re.Match[str]) -> str:
        return f"]({PAGES.get(match[1], match[1])}"

    return re.sub(r"\]\((?:\.\./|docs/)?([\w-]+\.md)", site_link, markdown)
