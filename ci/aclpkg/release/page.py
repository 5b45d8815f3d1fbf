# SPDX-License-Identifier: MIT
"""A channel's index.html: its packages, how to install them, how to verify them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from ..base.files import beside
from ..base.pins import MICROARCHITECTURES
from ..build import provenance, sbom

NAME = "index.html"
TEMPLATES = Path(__file__).parent


def render(index: Path, channel: Path) -> str:
    """The page for the packages that SUBDIR/repodata.json in the folder `index` names; the files are in `channel`."""
    records = [
        row(name, record, channel)
        for repodata in sorted(index.glob("*/repodata.json"))
        for name, record in json.loads(repodata.read_text())["packages.conda"].items()
    ]
    # acl-qlinear first; of each name, the newest.
    records.sort(key=lambda one: one["date"], reverse=True)
    records.sort(key=lambda one: (one["name"] != "acl-qlinear", one["name"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(f"{NAME}.jinja").render(packages=records)


def row(name: str, record: dict[str, Any], channel: Path) -> dict[str, Any]:
    """What the page says of the package file `name`."""
    path = Path(record["subdir"]) / name
    depends = dict(spec.split(" ", 1) for spec in record["depends"] if " " in spec)
    cpus = [one.variant for one in MICROARCHITECTURES.values() if one.name in record["build"]]
    timestamp = record.get("timestamp")
    return {
        "path": path.as_posix(),
        "name": record["name"],
        "version": record["version"],
        "build": record["build"],
        "pytorch": depends.get("pytorch", "").removesuffix(".*"),
        "cpu": cpus[0] if cpus else "",
        "kilobytes": record["size"] / 1000,
        "date": datetime.fromtimestamp(timestamp / 1000, UTC).date().isoformat() if timestamp else "",
        "sha256": record["sha256"],
        "beside": {
            text: beside(path, suffix).as_posix()
            for text, suffix in (("SBOM", sbom.SUFFIX), ("provenance", provenance.SUFFIX))
            if beside(channel / path, suffix).exists()
        },
    }
