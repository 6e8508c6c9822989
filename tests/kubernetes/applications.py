"""nginx as somebody's application in somebody's namespace, and a look at what it serves."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import NGINX_IMAGE
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT, namespace

PREFIX: Final = "penstock.dev"
USER: Final = 10001
"""Whom the application runs as; nobody else uses that number."""

NGINX: Final = """\
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8443 ssl;
    ssl_certificate /var/run/penstock/tls/tls.crt;
    ssl_certificate_key /var/run/penstock/tls/tls.key;
    location / { return 200 "hello\\n"; }
  }
}
"""

LOOK: Final = """\
import base64, json, socket, ssl, sys
asked = json.load(sys.stdin)
context = ssl.create_default_context(cadata=asked["roots"])
with socket.create_connection((asked["address"], asked["port"]), timeout=5) as plain:
    with context.wrap_socket(plain, server_hostname=asked["name"]) as tls:
        print(base64.b64encode(tls.getpeercert(True)).decode())
"""
"""A TLS client that verifies; run on the node, where the addresses of Services lead somewhere."""


def opted_in(name: str, **labels: str) -> dict[str, Any]:
    """Return a namespace that wants sidecars, with nginx's configuration still to come."""
    strict = {"pod-security.kubernetes.io/enforce": "restricted"}
    return namespace(name, **{f"{PREFIX}/inject": "enabled", **strict, **labels})


def settings(where: str) -> dict[str, Any]:
    """Return nginx's configuration file as a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "nginx", "namespace": where},
        "data": {"nginx.conf": NGINX},
    }


def exposed(name: str, where: str) -> dict[str, Any]:
    """Return the Service of an application."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": where},
        "spec": {"selector": {"app": name}, "ports": [{"port": 443, "targetPort": 8443}]},
    }


def pod_template(name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the template of nginx's pod; it has never heard of Penstock but for annotations."""
    strict = {key: value for key, value in STRICT.items() if key not in {"runAsUser"}}
    container = {
        "name": "main",
        "image": NGINX_IMAGE,
        "command": ["nginx", "-c", "/etc/web/nginx.conf", "-g", "daemon off;"],
        "ports": [{"containerPort": 8443}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "securityContext": strict,
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        "volumeMounts": [
            {"name": "settings", "mountPath": "/etc/web"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "metadata": {"labels": {"app": name}, "annotations": dict(annotations)},
        "spec": {
            "securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER},
            "terminationGracePeriodSeconds": 3,
            "containers": [container],
            "volumes": [
                {"name": "settings", "configMap": {"name": "nginx"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }


def application(
    name: str, where: str, *, replicas: int = 1, names: str = "", **annotations: str
) -> dict[str, Any]:
    """Return a Deployment of nginx that asks for a certificate for *names*, or its Services'."""
    wanted = {"inject": "true", **({"names": names} if names else {}), **annotations}
    template = pod_template(name, {f"{PREFIX}/{key}": value for key, value in wanted.items()})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": where},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
        },
    }


def look(cluster: Cluster, roots: str, address: str, name: str, *, port: int = 443) -> Any:
    """Return the certificate that is served, verified by *roots* and for *name*.

    Raises:
        ClusterFailed: Nobody answered, or what was served does not verify.
    """
    asked = {"roots": roots, "address": address, "name": name, "port": port}
    told = cluster.run(["python3", "-c", LOOK], text=json.dumps(asked), seconds=10)
    return x509.load_der_x509_certificate(base64.b64decode(told))


def address_of(cluster: Cluster, service: str, where: str) -> str:
    """Return the address of a Service."""
    return str(cluster.get("service", service, namespace=where)["spec"]["clusterIP"])


def wait_served(
    cluster: Cluster, roots: str, service: str, where: str, *, seconds: float, name: str = ""
) -> float:
    """Wait until a Service serves a certificate that verifies; return how long it took.

    It is for the Service's own name, unless another *name* is given.

    Raises:
        ClusterFailed: It did not in time; with why it failed last.
    """
    begun = time.monotonic()
    address = address_of(cluster, service, where)
    while True:
        try:
            look(cluster, roots, address, name or f"{service}.{where}.svc")
        except ClusterFailed as error:
            if time.monotonic() - begun > seconds:
                raise ClusterFailed(f"not within {seconds:g} s: {error}") from error
            time.sleep(0.1)
        else:
            return time.monotonic() - begun


def wait_admitted(cluster: Cluster, service: str, where: str, *, seconds: float) -> None:
    """Wait until admission would let an application's pod in; no pod is made.

    Raises:
        ClusterFailed: It did not in time; with what it said last.
    """
    asked = {
        "apiVersion": "v1",
        "kind": "Pod",
        **pod_template(service, {f"{PREFIX}/inject": "true"}),
    }
    asked["metadata"] |= {"name": "asked", "namespace": where}
    begun = time.monotonic()
    while True:
        try:
            cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(asked))
        except ClusterFailed:
            if time.monotonic() - begun > seconds:
                raise
            time.sleep(0.5)
        else:
            return


def events(cluster: Cluster, where: str) -> list[str]:
    """Return what events of a namespace say, the newest last."""
    found = cluster.get("events", namespace=where)["items"]
    return [one["message"] for one in found]
