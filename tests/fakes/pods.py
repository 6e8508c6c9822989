"""Pods and reviews of them, as an API server would send them; and how it applies a patch."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from broker.admission.sidecar import SidecarSettings

__all__ = ["PREFIX", "apply_patch", "patched", "pod", "review", "settings"]

PREFIX = "penstock.dev"


def pod(
    annotations: Mapping[str, str] | None = None,
    *,
    containers: Sequence[Mapping[str, Any]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a pod that asks to be injected; *annotations* are without their prefix."""
    asked = {"inject": "true", **(annotations or {})}
    own = {"name": "web", "image": "web:1", "securityContext": {"runAsUser": 1000}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-7d9f-",
            "labels": {"app": "web"},
            "annotations": {f"{PREFIX}/{name}": value for name, value in asked.items()},
        },
        "spec": {
            "serviceAccountName": "web",
            "containers": list(containers if containers is not None else [own]),
            **spec,
        },
    }


def review(
    document: Mapping[str, Any] | None,
    *,
    kind: str = "Pod",
    operation: str = "CREATE",
    namespace: str = "shop",
    **more: Any,
) -> dict[str, Any]:
    """Return the review in which an API server asks about *document*."""
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": kind},
        "resource": {"group": "", "version": "v1", "resource": kind.lower() + "s"},
        "operation": operation,
        "namespace": namespace,
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": document,
        "oldObject": None,
        "dryRun": False,
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def settings(**more: Any) -> SidecarSettings:
    """Return what is the same for every pod."""
    given: dict[str, Any] = {
        "image": "registry.example/penstock-agent:0.1.0",
        "pull_policy": "IfNotPresent",
        "broker_url": "https://penstock-agents.penstock.svc:8445",
        "audience": "penstock",
        "token_lifetime": timedelta(hours=1),
        "trust": "penstock-trust",
        "cpu_request": "5m",
        "memory_request": "32Mi",
        "memory_limit": "64Mi",
        "start_within": timedelta(minutes=10),
        "metrics_port": 0,
        "version": "0.1.0",
    }
    return SidecarSettings(**{**given, **more})


def apply_patch(document: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return *document* after *steps* (RFC 6902 §4: add and test)."""
    made: Any = copy.deepcopy(dict(document))
    for step in steps:
        *way, last = [
            one.replace("~1", "/").replace("~0", "~") for one in step["path"].split("/")[1:]
        ]
        at = made
        for one in way:
            at = at[int(one)] if isinstance(at, list) else at[one]
        if step["op"] == "test":
            assert at[last] == step["value"], f"test of {step['path']} failed"
            continue
        assert step["op"] == "add"
        if isinstance(at, list):
            place = len(at) if last == "-" else int(last)
            assert place <= len(at)
            at.insert(place, copy.deepcopy(step["value"]))
        else:
            at[last] = copy.deepcopy(step["value"])
    return dict(made)


def patched(document: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return *document* as the API server makes it of an answer that lets it through."""
    response = json.loads(body)["response"]
    assert response["allowed"], response
    if "patch" not in response:
        return dict(document)
    assert response["patchType"] == "JSONPatch"
    return apply_patch(document, json.loads(base64.b64decode(response["patch"])))
