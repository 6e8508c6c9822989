"""The sidecar as it stands in a pod afterwards."""

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.admission.annotations import parse_wanted
from broker.admission.pods import find_place, is_injected, parse_pod
from broker.admission.sidecar import make_patch
from tests.fakes.pods import PREFIX, apply_patch, pod, settings

GOLDEN = Path(__file__).parents[2] / "golden" / "admission"


def injected(document: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the pod as the API server makes it."""
    made = parse_pod(document, "shop")
    wanted = parse_wanted(made.annotations, PREFIX)
    place = find_place(made, wanted, PREFIX)
    names = wanted.names or ("web.shop.svc",)
    patch = make_patch(made, wanted, place, names, settings(**more), prefix=PREFIX)
    return apply_patch(document, patch)


FULL = {
    "names": "web.shop.svc,web.shop.svc.cluster.local",
    "profile": "server",
    "path": "/etc/nginx/tls",
    "layout": "pem",
    "reload": "signal:HUP:/usr/sbin/nginx",
    "look": "127.0.0.1:8443",
    "key": "ec-p384",
}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("plain", pod()),
        (
            "full",
            pod(
                FULL,
                containers=[
                    {
                        "name": "nginx",
                        "image": "nginx:1",
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                initContainers=[{"name": "migrate", "image": "web:1"}],
                volumes=[{"name": "data", "emptyDir": {}}],
                securityContext={"runAsUser": 101, "runAsGroup": 101, "fsGroup": 101},
            ),
        ),
    ],
    ids=["plain", "full"],
)
def test_the_pod_is_as_the_golden_file_has_it(
    name: str, document: dict[str, Any], update_golden: bool
) -> None:
    """Which the chart's library template is held against, too."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(injected(document), indent=2) + "\n"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    else:
        assert path.read_text(encoding="utf-8") == text


def test_the_sidecar_is_the_first_and_stays() -> None:
    """So whatever comes after it starts once its start-up probe has passed."""
    found = injected(pod(initContainers=[{"name": "migrate"}]))
    sidecar, after = found["spec"]["initContainers"]
    assert (sidecar["name"], after["name"]) == ("penstock-agent", "migrate")
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["exec"]["command"][-2:] == ["--wait", "20"]


def test_the_key_lies_in_memory_and_the_application_cannot_write_it() -> None:
    """Read-only where the application sees it."""
    found = injected(pod(FULL))["spec"]
    (volume,) = [one for one in found["volumes"] if one["name"] == "penstock-tls"]
    assert volume["emptyDir"]["medium"] == "Memory"
    (mount,) = found["containers"][0]["volumeMounts"]
    assert mount == {"name": "penstock-tls", "mountPath": "/etc/nginx/tls", "readOnly": True}


def test_token_and_state_are_the_sidecars_alone() -> None:
    """No container of the application's mounts them."""
    found = injected(pod(initContainers=[{"name": "migrate"}]))["spec"]
    mounted = [
        mount["name"]
        for one in (*found["containers"], found["initContainers"][1])
        for mount in one.get("volumeMounts", ())
    ]
    assert mounted == ["penstock-tls"]


def test_the_sidecar_keeps_to_the_restricted_standard() -> None:
    """Whatever the application does."""
    (sidecar,) = injected(pod())["spec"]["initContainers"]
    assert sidecar["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_it_may_take_as_long_as_is_configured() -> None:
    """Rounded up to whole probes."""
    (sidecar,) = injected(pod(), start_within=timedelta(minutes=10))["spec"]["initContainers"]
    probe = sidecar["startupProbe"]
    assert probe["failureThreshold"] == 29
    assert probe["timeoutSeconds"] > 20
    (other,) = injected(pod(), start_within=timedelta(seconds=1))["spec"]["initContainers"]
    assert other["startupProbe"]["failureThreshold"] == 1


def test_metrics_have_a_port_of_the_pods_own_alone() -> None:
    """On the node's network a second pod could not have it."""
    (sidecar,) = injected(pod(), metrics_port=9406)["spec"]["initContainers"]
    assert sidecar["ports"][0]["containerPort"] == 9406
    assert 'metrics = "0.0.0.0:9406"' in sidecar["env"][0]["value"]
    (other,) = injected(pod(hostNetwork=True), metrics_port=9406)["spec"]["initContainers"]
    assert "ports" not in other
    assert 'metrics = ""' in other["env"][0]["value"]


def test_processes_are_shared_for_a_reload_alone() -> None:
    """Others keep theirs apart."""
    assert injected(pod(FULL))["spec"]["shareProcessNamespace"] is True
    assert "shareProcessNamespace" not in injected(pod())["spec"]


def test_what_was_injected_is_known_again() -> None:
    """By the annotations that it gets; what else the pod has stays."""
    document = pod(containers=[{"name": "web", "securityContext": {"runAsUser": 1}, "args": ["x"]}])
    before = copy.deepcopy(document)
    found = injected(document)
    assert document == before
    assert is_injected(parse_pod(found, "shop"), PREFIX)
    assert found["metadata"]["annotations"][f"{PREFIX}/agent-version"] == "0.1.0"
    assert found["spec"]["containers"][0]["args"] == ["x"]
