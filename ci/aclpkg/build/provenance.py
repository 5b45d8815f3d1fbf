"""Where a package comes from: PACKAGE.intoto.json, beside it.

An in-toto statement, the form of conda's CEP 27, with SLSA's provenance predicate.
"""

import json
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ..base import archives, files
from ..base.hashes import sha256, tree_hash
from ..base.paths import ROOT
from . import sbom

STATEMENT = "https://in-toto.io/Statement/v1"
SUFFIX = ".intoto.json"
PROVENANCE = "https://slsa.dev/provenance/v1"


def write(package: Path, started: datetime, sources: list[tuple[Path, str]]) -> None:
    """Writes the SBOM and the provenance of a sealed package, built since `started` from `sources`."""
    with tempfile.TemporaryDirectory() as name:
        archives.unpack_package(package, Path(name))
        info = Path(name) / "info"
        index = json.loads((info / "index.json").read_text())
        recipe = yaml.safe_load((info / "recipe/rendered_recipe.yaml").read_text())
    files.beside(package, sbom.SUFFIX).write_text(sbom.package_sbom(package, index, recipe))
    statement = _statement(package, PROVENANCE, _provenance(index, recipe, started, sources))
    files.beside(package, SUFFIX).write_text(json.dumps(statement, indent=2) + "\n")


def _statement(package: Path, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"name": package.name, "digest": {"sha256": sha256(package)}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _provenance(
    index: dict[str, Any], recipe: dict[str, Any], started: datetime, sources: list[tuple[Path, str]]
) -> dict[str, Any]:
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
            "internalParameters": {"SOURCE_DATE_EPOCH": index["timestamp"] // 1000},
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
