# SPDX-License-Identifier: MIT
"""What a package or an image consists of, as CycloneDX 1.6; of a package beside it, in PACKAGE.cdx.json."""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from ..base.hashes import sha256
from ..base.processes import run
from .normalize import BuiltPackage

SUFFIX = ".cdx.json"
# What ACL's source has of others' in it, and compiles into the library.
BUNDLED = {"arm-compute-library": [("half", "MIT")]}


def purl(record: dict[str, Any]) -> PackageURL:
    """The address of a conda package, from its record in an index."""
    qualifiers = {"build": record["build"], "subdir": record["subdir"], "type": "conda"}
    return PackageURL("conda", None, record["name"], str(record["version"]), qualifiers)


def _component(record: dict[str, Any], digest: str | None, scope: ComponentScope | None, **more: Any) -> Component:
    own = purl(record)
    licence = record.get("license")
    return Component(
        name=record["name"],
        version=str(record["version"]),
        type=ComponentType.LIBRARY,
        bom_ref=str(own),
        purl=own,
        scope=scope,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        licenses=[LicenseExpression(licence)] if licence else [],
        **more,
    )


def package_sbom(package: BuiltPackage, stand_ins: dict[str, str]) -> str:
    """The package, what is compiled into it, what it needs (required), and what it was built with (excluded).

    stand_ins: files of ci/debian.lock, and what was used in their place.
    """
    index, recipe = package.index, package.recipe
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"pkg:sha256:{package.sha256}"),
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(index["timestamp"] / 1000, UTC),
            component=_component(index, package.sha256, None),
            properties=[Property(name="acl-qlinear:not-locked", value=f"{a}: {b}") for a, b in stand_ins.items()],
        ),
    )
    root = bom.metadata.component
    assert root
    sources = [_source(source, index) for source in recipe.get("finalized_sources", []) if "url" in source]
    bundled = [
        Component(
            name=name,
            type=ComponentType.LIBRARY,
            bom_ref=f"bundled:{name}",
            licenses=[LicenseExpression(licence)],
        )
        for name, licence in BUNDLED.get(index["name"], [])
    ]
    needed = {depend.split()[0] for depend in index["depends"]}
    found: dict[str, Component] = {}
    for part, records in resolved(recipe).items():
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


def collection_sbom(
    name: str,
    version: str,
    epoch: int,
    packages: list[dict[str, Any]],
    kind: ComponentType,
    debs: Iterable[Path] = (),
) -> str:
    """The SBOM of what is made of conda packages, by their records, and of Debian's: an image, a wheel."""
    root = Component(name=name, version=version, type=kind, bom_ref=name)
    components = [_component(record, record["sha256"], ComponentScope.REQUIRED) for record in packages]
    for deb in debs:
        # A file's name lacks the version's epoch.
        package, number, arch = run(
            ["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", deb]
        ).split()
        own = PackageURL("deb", "debian", package, number, {"arch": arch})
        digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256(deb))
        components.append(
            Component(
                name=package, version=number, type=ComponentType.LIBRARY, bom_ref=str(own), purl=own, hashes=[digest]
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
        name=f"{index['name']}-source",
        version=index["version"],
        type=ComponentType.FILE,
        bom_ref=f"source:{source['sha256']}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source["sha256"])],
        external_references=[
            ExternalReference(type=ExternalReferenceType.SOURCE_DISTRIBUTION, url=XsUri(source["url"]))
        ],
    )


def resolved(recipe: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The packages in the environments that a package was built in: build, and host."""
    dependencies = recipe["finalized_dependencies"]
    return {part: (dependencies.get(part) or {}).get("resolved", []) for part in ("build", "host")}
