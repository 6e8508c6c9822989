"""The sidecar by the library template is the sidecar by annotations, to the letter."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.admission.annotations import parse_wanted
from broker.admission.pods import find_place, parse_pod
from broker.admission.sidecar import SidecarSettings, make_patch
from tests.peers.helm import CHART, RenderFailed, render

pytestmark = pytest.mark.peers

PREFIX = "penstock.dev"
IMAGE = "registry.example/penstock/agent:1.2.3"
URL = "https://penstock-agents.penstock.svc:8445"
NAMES = ("web.shop.svc", "*.web.shop.svc", "2001:db8::7")

SETTINGS = SidecarSettings(
    image=IMAGE,
    pull_policy="IfNotPresent",
    broker_url=URL,
    audience="penstock",
    token_lifetime=timedelta(hours=1),
    trust="penstock-trust",
    cpu_request="5m",
    memory_request="32Mi",
    memory_limit="64Mi",
    start_within=timedelta(minutes=10),
    metrics_port=0,
    version="1.2.3",
)

TEMPLATE = """\
apiVersion: v1
kind: Sidecar
metadata: { name: made }
initContainers:
  {{- include "penstock.sidecar.container" .Values.sidecar | nindent 2 }}
volumes:
  {{- include "penstock.sidecar.volumes" .Values.sidecar | nindent 2 }}
volumeMounts:
  {{- include "penstock.sidecar.mount" .Values.sidecar | nindent 2 }}
"""

CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "as it is": ({}, {}),
    "profile and key": (
        {"profile": "server", "key": "rsa-3072"},
        {"profile": "server", "key": "rsa-3072"},
    ),
    "layout and path": (
        {"layout": "pem", "path": "/etc/nginx/tls"},
        {"layout": "pem", "path": "/etc/nginx/tls"},
    ),
    "reload": (
        {"reload": "signal:HUP:/usr/sbin/nginx"},
        {"reload": {"signal": "HUP", "program": "/usr/sbin/nginx"}},
    ),
    "look": ({"look": "127.0.0.1:8443"}, {"look": "127.0.0.1:8443"}),
}
"""What is asked for: by annotations, and by the template's values."""


def by_annotation(asked: dict[str, str]) -> dict[str, Any]:
    """Return what admission puts into a pod of one container."""
    annotations = {f"{PREFIX}/{key}": value for key, value in {"inject": "true", **asked}.items()}
    app: dict[str, Any] = {"name": "app", "image": "x", "securityContext": {"runAsUser": 101}}
    document = {
        "metadata": {"name": "web-0", "annotations": annotations},
        "spec": {"containers": [app]},
    }
    pod = parse_pod(document, "shop")
    wanted = parse_wanted(pod.annotations, PREFIX)
    place = find_place(pod, wanted, PREFIX)
    patch = make_patch(pod, wanted, place, NAMES, SETTINGS, prefix=PREFIX)
    added = {one["path"]: one["value"] for one in patch if one["op"] == "add"}
    return {
        "initContainers": added["/spec/initContainers"],
        "volumes": added["/spec/volumes"],
        "volumeMounts": added["/spec/containers/0/volumeMounts"],
    }


def by_template(directory: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the library makes in somebody's chart."""
    (directory / "templates").mkdir(parents=True)
    (directory / "Chart.yaml").write_text("apiVersion: v2\nname: somebodys\nversion: 0.1.0\n")
    (directory / "templates" / "made.yaml").write_text(TEMPLATE)
    shutil.copytree(CHART / "charts" / "penstock-lib", directory / "charts" / "penstock-lib")
    (made,) = render(chart=directory, values={"sidecar": values}).documents
    return {key: made[key] for key in ("initContainers", "volumes", "volumeMounts")}


def values(**more: Any) -> dict[str, Any]:
    """Return the least that the template takes, and *more*."""
    return {"image": IMAGE, "brokerUrl": URL, "names": list(NAMES), "user": 101, **more}


@pytest.mark.parametrize("what", CASES)
def test_template_gives_what_annotations_give(what: str, tmp_path: Path) -> None:
    """Container, volumes, the application's mount, and every line of the agent's file."""
    asked, given = CASES[what]
    assert by_template(tmp_path, values(**given)) == by_annotation(asked)


def test_difference_would_be_seen(tmp_path: Path) -> None:
    """The twin: another key is another sidecar."""
    assert by_template(tmp_path, values(key="rsa-2048")) != by_annotation({})


@pytest.mark.parametrize("missing", ["image", "brokerUrl", "names", "user"])
def test_what_is_missing_is_asked_for(missing: str, tmp_path: Path) -> None:
    """By name, when the chart is rendered."""
    given = {key: value for key, value in values().items() if key != missing}
    with pytest.raises(RenderFailed, match=f"{missing} is missing"):
        by_template(tmp_path, given)


@pytest.mark.parametrize("name", ['a"b', "a\nb", "$(HOME)", "a\\b", "a'b"])
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    """Rather than written into the agent's file, or into an environment that expands it."""
    with pytest.raises(RenderFailed, match="has a sign that no name, path or URL has"):
        by_template(tmp_path, values(names=[name]))


def test_admission_keeps_its_own_certificate_by_the_same_sidecar() -> None:
    """But for its names, and the roots that it takes where the broker writes them."""
    made = render().one("Deployment", "penstock-admission")["spec"]["template"]["spec"]
    (own,) = made["initContainers"]
    (usual,) = by_annotation({})["initContainers"]
    same = ("restartPolicy", "args", "startupProbe", "volumeMounts", "resources")
    assert {key: own[key] for key in same} == {key: usual[key] for key in same}
    text = own["env"][0]["value"]
    assert 'names = ["penstock-admission.penstock.svc"' in text
