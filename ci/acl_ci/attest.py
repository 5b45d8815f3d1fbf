"""What a package consists of and where it comes from: its SBOM and its provenance, written beside it.

PACKAGE.cdx.json     CycloneDX 1.6
PACKAGE.intoto.json  an in-toto statement, the form of conda's CEP 27, with SLSA's provenance predicate
"""

import hashlib
import json
import subprocess
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from . import seal
from .cache import ROOT, tree_hash

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
SBOM_SUFFIX, PROVENANCE_SUFFIX = ".cdx.json", ".intoto.json"
# What ACL's source has of others' in it, and compiles into the library.
BUNDLED = {"arm-compute-library": [("half", "MIT")]}


def write(package: Path, started: datetime, sources: list[tuple[Path, str]]) -> None:
    """Writes the SBOM and the provenance of a sealed package, built since `started` from `sources`."""
    with tempfile.TemporaryDirectory() as name:
        seal.unpack(package, Path(name))
        info = Path(name) / "info"
        index = json.loads((info / "index.json").read_text())
        recipe = yaml.safe_load((info / "recipe/rendered_recipe.yaml").read_text())
    beside(package, SBOM_SUFFIX).write_text(_sbom(package, index, recipe))
    statement = _statement(package, PROVENANCE, _provenance(index, recipe, started, sources))
    beside(package, PROVENANCE_SUFFIX).write_text(json.dumps(statement, indent=2) + "\n")


def beside(package: Path, suffix: str) -> Path:
    """The file of a package with this suffix."""
    return package.with_name(package.name + suffix)


def _statement(package: Path, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"name": package.name, "digest": {"sha256": sha256(package)}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def sha256(file: Path) -> str:
    """The file's sha256, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _purl(record: dict[str, Any]) -> PackageURL:
    qualifiers = {"build": record["build"], "subdir": record["subdir"], "type": "conda"}
    return PackageURL("conda", None, record["name"], str(record["version"]), qualifiers)


def _component(record: dict[str, Any], digest: str | None, scope: ComponentScope | None, **more: Any) -> Component:
    purl = _purl(record)
    licence = record.get("license")
    return Component(
        name=record["name"], version=str(record["version"]), type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl,
        scope=scope, hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        licenses=[LicenseExpression(licence)] if licence else [], **more,
    )  # fmt: skip


def _sbom(package: Path, index: dict[str, Any], recipe: dict[str, Any]) -> str:
    """The package, what is compiled into it, what it needs (required), and what it was built with (excluded)."""
    digest = sha256(package)
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"pkg:sha256:{digest}"),
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(index["timestamp"] / 1000, UTC),
            component=_component(index, digest, None),
        ),
    )
    root = bom.metadata.component
    assert root
    sources = [_source(source, index) for source in recipe.get("finalized_sources", []) if "url" in source]
    bundled = [
        Component(
            name=name, type=ComponentType.LIBRARY, bom_ref=f"bundled:{name}",
            licenses=[LicenseExpression(licence)],
        )
        for name, licence in BUNDLED.get(index["name"], [])
    ]  # fmt: skip
    needed = {depend.split()[0] for depend in index["depends"]}
    found: dict[str, Component] = {}
    for part, records in _resolved(recipe).items():
        for record in records:
            required = part == "host" and record["name"] in needed
            scope = ComponentScope.REQUIRED if required else ComponentScope.EXCLUDED
            component = _component(record, record["sha256"], scope, properties=[Property(name="conda:env", value=part)])
            found.setdefault(str(component.purl), component)
    components = [*sources, *bundled, *found.values()]
    bom.components.update(components)
    used = [Dependency(part.bom_ref) for part in components if part.scope != ComponentScope.EXCLUDED]
    bom.dependencies.add(Dependency(root.bom_ref, used))
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def image_sbom(name: str, version: str, epoch: int, packages: list[dict[str, Any]], debs: list[Path]) -> str:
    """The SBOM of an image: conda packages, as conda-meta/ has them, and Debian's."""
    root = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=name)
    components = [_component(record, record["sha256"], ComponentScope.REQUIRED) for record in packages]
    for deb in debs:
        package, number, arch = deb.name.removesuffix(".deb").replace("%3a", ":").split("_")
        purl = PackageURL("deb", "debian", package, number, {"arch": arch})
        digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256(deb))
        components.append(
            Component(
                name=package, version=number, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl, hashes=[digest]
            )
        )
    content = "".join(sorted(str(component.bom_ref) for component in components))
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, content),
        metadata=BomMetaData(timestamp=datetime.fromtimestamp(epoch, UTC), component=root),
    )
    bom.components.update(components)
    bom.dependencies.add(Dependency(root.bom_ref, [Dependency(part.bom_ref) for part in components]))
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _source(source: dict[str, Any], index: dict[str, Any]) -> Component:
    return Component(
        name=f"{index['name']}-source", version=index["version"], type=ComponentType.FILE,
        bom_ref=f"source:{source['sha256']}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source["sha256"])],
        external_references=[
            ExternalReference(type=ExternalReferenceType.SOURCE_DISTRIBUTION, url=XsUri(source["url"]))
        ],
    )  # fmt: skip


def _resolved(recipe: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The packages in the environments that a package was built in: build, and host."""
    dependencies = recipe["finalized_dependencies"]
    return {part: (dependencies.get(part) or {}).get("resolved", []) for part in ("build", "host")}


def _provenance(
    index: dict[str, Any], recipe: dict[str, Any], started: datetime, sources: list[tuple[Path, str]]
) -> dict[str, Any]:
    materials = [
        {"name": path, "digest": {"treeSha256" if source.is_dir() else "sha256": _digest(source)}}
        for source, path in sources
    ]
    materials += [
        {"uri": source["url"], "digest": {"sha256": source["sha256"]}}
        for source in recipe.get("finalized_sources", []) if "url" in source
    ]  # fmt: skip
    materials += [
        {"uri": str(_purl(record)), "digest": {"sha256": record["sha256"]}, "annotations": {"environment": part}}
        for part, records in _resolved(recipe).items() for record in records
    ]  # fmt: skip
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
