"""Helm, and what looks at manifests: the schemas of Kubernetes, and kube-score.

Nothing here speaks to a cluster.  Helm as it is built from the proxy believes in an old Kubernetes
when no cluster is there, so the version is always said.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from tests.peers.installation import installed

__all__ = ["CHART", "RenderFailed", "Rendered", "lint", "render", "schema_faults", "score"]

CHART: Final = Path(__file__).resolve().parents[2] / "helm" / "penstock"

SECONDS: Final = 60.0
"""Longest run of one of these programs; on an idle core they take under two seconds."""

Document = dict[str, Any]

VALIDATE: Final = """
import json, sys, warnings
warnings.simplefilter("ignore")
import kubernetes_validate as kv
asked = json.load(sys.stdin)
faults = []
for document in asked["documents"]:
    name = f"{document['kind']}/{document['metadata']['name']}"
    try:
        kv.validate(document, asked["version"], strict=True)
    except kv.SchemaNotFoundError:
        faults.append([name, "no schema"])
    except kv.ValidationError as error:
        faults.append([name, str(error.message)[:300]])
print(json.dumps(faults))
"""
"""What is run by the Python of the environment that has the schemas."""


class RenderFailed(Exception):
    """Helm refused to render; the text is what it says."""


class Rendered:
    """What a chart was rendered to."""

    def __init__(self, text: str) -> None:
        self.text = text
        loaded = YAML(typ="safe", pure=True).load_all(text)
        self.documents: list[Document] = [one for one in loaded if one]

    def all(self, kind: str) -> list[Document]:
        """Return every object of *kind*."""
        return [one for one in self.documents if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Document:
        """Return an object; raises KeyError where there is none."""
        for each in self.all(kind):
            if each["metadata"]["name"] == name:
                return each
        raise KeyError(f"{kind}/{name}")


def render(
    *files: Path,
    values: Mapping[str, Any] | None = None,
    chart: Path = CHART,
    release: str = "penstock",
    namespace: str = "penstock",
    version: str = "1.34.2",
) -> Rendered:
    """Render *chart* with the values of *files* and then *values*.

    Raises:
        RenderFailed: It was refused.
    """
    command = ["template", release, str(chart), "--namespace", namespace, "--kube-version", version]
    command += [word for file in files for word in ("--values", str(file))]
    if values:
        command += ["--values", "-"]
    done = _run("helm", command, _yaml(values) if values else "")
    if done.returncode != 0:
        raise RenderFailed(done.stderr)
    return Rendered(done.stdout)


def lint(*files: Path, chart: Path = CHART) -> str:
    """Return what ``helm lint --strict`` says; raises RenderFailed where it finds a fault."""
    command = ["lint", str(chart), "--strict", "--kube-version", "1.34.2"]
    command += [word for file in files for word in ("--values", str(file))]
    done = _run("helm", command, "")
    if done.returncode != 0:
        raise RenderFailed(done.stdout + done.stderr)
    return done.stdout


def helm(*words: str) -> str:
    """Run another helm command and return what it prints."""
    done = _run("helm", list(words), "")
    if done.returncode != 0:
        raise RenderFailed(done.stderr)
    return done.stdout


def schema_faults(documents: Sequence[Document], version: str) -> list[list[str]]:
    """Return (object, fault) for all that a Kubernetes of *version* would refuse."""
    asked = json.dumps({"documents": list(documents), "version": version})
    done = _run("kubernetes-validate", ["-c", VALIDATE], asked)
    if done.returncode != 0:
        raise RenderFailed(done.stderr)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def score(text: str, *, ignored: Sequence[str] = ()) -> list[str]:
    """Return what kube-score finds critical: object, check and comment in a line each."""
    command = ["score", "-", "--output-format", "json", "--kubernetes-version", "v1.34"]
    command += [word for one in ignored for word in ("--ignore-test", one)]
    done = _run("kube-score", command, text)
    found = []
    for item in json.loads(done.stdout or "[]"):
        for check in item["checks"]:
            if not check["skipped"] and check["grade"] <= 1:
                comments = "; ".join(one["summary"] for one in check["comments"] or ())
                found.append(f"{item['object_name']}: {check['check']['id']}: {comments}")
    return found


def _yaml(values: Mapping[str, Any]) -> str:
    out = StringIO()
    YAML(typ="safe", pure=True).dump(dict(values), out)
    return str(out.getvalue())


def _run(program: str, command: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
    # Without a cluster, and with nothing of whoever runs the tests.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"}
    return subprocess.run(
        [str(installed(program)), *command],
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment,
        check=False,
    )
