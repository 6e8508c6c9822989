"""The bill of materials of an image: what a scanner wants to know, as SPDX 2.3 in JSON.

Debian's packages of the base, Python itself, each Python package with the hash of the wheel that
it came from.  Written inside the build, so that it is there wherever the image is; the same image
has the same bill.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

UNSAID: Final = "NOASSERTION"
"""SPDX's word for what nobody looked into."""

DPKG: Final = Path("/var/lib/dpkg")
RELEASE: Final = Path("/etc/os-release")


@dataclass(frozen=True, slots=True)
class Part:
    """One package of an image."""

    kind: str
    name: str
    version: str
    url: str
    """Package URL, by which scanners look for known weaknesses."""

    licence: str = UNSAID
    sha256: str = ""

    @property
    def id(self) -> str:
        """Its name within the bill."""
        plain = re.sub(r"[^A-Za-z0-9.-]", "-", f"{self.kind}-{self.name}-{self.version}")
        return f"SPDXRef-{plain}"

    def document(self) -> dict[str, Any]:
        """Return it as SPDX has it."""
        told: dict[str, Any] = {
            "SPDXID": self.id,
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": UNSAID,
            "filesAnalyzed": False,
            "licenseConcluded": UNSAID,
            "licenseDeclared": self.licence,
            "copyrightText": UNSAID,
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": self.url,
                }
            ],
        }
        if self.sha256:
            told["checksums"] = [{"algorithm": "SHA256", "checksumValue": self.sha256}]
        return told


def debian_parts(dpkg: Path = DPKG, release: Path = RELEASE) -> Iterator[Part]:
    """Return Debian's packages, as dpkg keeps them, or as images without dpkg list them."""
    said = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.read_text("utf-8"), re.MULTILINE))
    where = f"{said.get('ID', 'debian')}-{said.get('VERSION_ID', '')}"
    files = [dpkg / "status", *sorted((dpkg / "status.d").glob("*"))]
    for file in files:
        if not file.is_file() or file.suffix == ".md5sums":
            continue
        for entry in file.read_text("utf-8").split("\n\n"):
            told = dict(re.findall(r"^([\w-]+): (.*)$", entry, re.MULTILINE))
            if "Version" in told and told.get("Status", "install ok installed").endswith(
                "installed"
            ):
                name, version = told["Package"], told["Version"]
                url = (
                    f"pkg:deb/{said.get('ID', 'debian')}/{quote(name)}@{quote(version, safe=':~')}"
                )
                url += f"?arch={told['Architecture']}&distro={where}"
                yield Part("deb", name, version, url)


def python_parts(folder: Path, hashes: Mapping[str, str]) -> Iterator[Part]:
    """Return the Python packages below *folder*; *hashes* are those of their wheels, by name."""
    for found in metadata.distributions(path=[str(folder)]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        licence = found.metadata.get("License-Expression") or UNSAID
        url = f"pkg:pypi/{name}@{quote(found.version)}"
        yield Part("pypi", name, found.version, url, licence, hashes.get(name, ""))


def wheel_hashes(report: Path) -> dict[str, str]:
    """Return package → SHA-256 of its wheel, from what pip reports of an installation."""
    installed = json.loads(report.read_text("utf-8"))["install"]
    return {
        re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower(): one["download_info"][
            "archive_info"
        ]["hashes"]["sha256"]
        for one in installed
    }


def bill(image: Part, parts: Sequence[Part], date: int) -> str:
    """Return the bill of *image*, made at *date* (seconds since 1970)."""
    every = sorted([image, *parts], key=lambda part: part.id)
    packages = [part.document() for part in every]
    content = hashlib.sha256(json.dumps(packages).encode()).hexdigest()
    made = datetime.datetime.fromtimestamp(date, datetime.UTC)
    held = [
        {
            "spdxElementId": image.id,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": part.id,
        }
        for part in every
        if part is not image
    ]
    described = {
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": image.id,
    }
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image.name,
        # It names the content alone, so that two builds of one image have one bill.
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "creationInfo": {
            "created": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: penstock-image-bill-{image.version}"],
        },
        "packages": packages,
        "relationships": [described, *held],
    }
    return json.dumps(document, indent=1) + "\n"


def interpreter() -> Part:
    """Return the Python that this runs on; where Debian brings it, it is listed twice."""
    version = platform.python_version()
    return Part("generic", "python", version, f"pkg:generic/python@{version}", "Python-2.0.1")
