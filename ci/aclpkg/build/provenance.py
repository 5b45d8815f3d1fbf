# SPDX-License-Identifier: MIT
"""Where a package comes from: PACKAGE.intoto.json, beside it.

An in-toto statement, the form of conda's CEP 27, with SLSA's provenance predicate.
"""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..base.hashes import sha256, tree_hash
from ..base.paths import ROOT
from . import sbom
from .normalize import BuiltPackage

STATEMENT = "https://in-toto.io/Statement/v1"
SUFFIX = ".intoto.json"
PROVENANCE = "https://slsa.dev/provenance/v1"


def statement(
    package: BuiltPackage, started: datetime, sources: list[tuple[Path, str]], stand_ins: dict[str, str]
) -> str:
    """The statement about a package, built since `started` from `sources`, files and folders and their paths here.

    stand_ins: files of ci/debian.lock, and what was used in their place.
    """
    content = {
        "_type": STATEMENT,
        "subject": [{"name": package.path.name, "digest": {"sha256": package.sha256}}],
        "predicateType": PROVENANCE,
        "predicate": _provenance(package, started, sources, stand_ins),
    }
    return json.dumps(content, indent=2) + "\n"


def _provenance(
    package: BuiltPackage, started: datetime, sources: list[tuple[Path, str]], stand_ins: dict[str, str]
) -> dict[str, Any]:
    index, recipe = package.index, package.recipe
    materials = [
        {"name": path, "digest": {"treeSha256" if source.is_dir() else "sha256": _digest(source)}}
        for source, path in sources
    ]
    materials += [
        {"uri": source["url"], "digest": {"sha256": source["sha256"]}}
        for source in recipe.get("finalized_sources", [])
        if "url" in source
    ]
    materials += [
        {"uri": str(sbom.purl(record)), "digest": {"sha256": record["sha256"]}, "annotations": {"environment": part}}
        for part, records in sbom.resolved(recipe).items()
        for record in records
    ]
    if commit := _git("rev-parse", "HEAD"):
        changed = bool(_git("status", "--porcelain", "--", *(str(source) for source, _ in sources)))
        materials.insert(
            0, {"name": "acl-qlinear", "digest": {"gitCommit": commit}, "annotations": {"changedSinceCommit": changed}}
        )
    configuration = recipe["build_configuration"]
    return {
        "buildDefinition": {
            "buildType": "tag:acl-qlinear,2026:rattler-build",
            "externalParameters": {
                "recipe": f"recipe/{index['name']}/recipe.yaml",
                "variant": configuration["variant"],
                "channels": configuration["channels"],
                "targetPlatform": configuration["target_platform"],
            },
            "internalParameters": {"SOURCE_DATE_EPOCH": index["timestamp"] // 1000, "notLocked": stand_ins},
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": {
                "id": "tag:acl-qlinear,2026:ci/build.sh",
                "version": {
                    **recipe["system_tools"],
                    "build platform": configuration["build_platform"]["platform"],
                    "ci/requirements.txt": sha256(ROOT / "ci/requirements.txt"),
                },
            },
            "metadata": {
                "startedOn": started.isoformat(timespec="seconds"),
                "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        },
    }


def _digest(source: Path) -> str:
    return tree_hash(source) if source.is_dir() else sha256(source)


def _git(*arguments: str) -> str:
    """What git prints about the checkout; nothing where there is none."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
