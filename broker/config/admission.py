"""The shape of the file of ``penstock admission``, which looks after the pods of one cluster.

A file of its own: this process has neither the broker's store nor its keys.  Each key's docstring
is its documentation.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from broker.config.load import read_text
from broker.config.model import Log
from broker.config.section import ConfigName, Section
from broker.config.values import AbsolutePath, Endpoint, EndpointText, HttpsUrl, Secret, SecretRef
from broker.policy.units import Duration
from broker.policy.yamlfile import load_model

__all__ = ["AdmissionConfig", "AdmissionListen", "SidecarSection", "load_admission"]

_SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_PREFIX: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+"
)
_QUANTITY: Final = re.compile(r"[1-9][0-9]{0,8}(m|k|M|G|Ki|Mi|Gi)?", re.ASCII)
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", re.ASCII)

SHORTEST_TOKEN: Final = timedelta(minutes=10)
"""Shortest lifetime of a projected token that Kubernetes takes."""

_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - the API server is on another host


def _check_name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(f"'{value[:64]}' is no name in Kubernetes")
    return value


def _check_prefix(value: str) -> str:
    if _PREFIX.fullmatch(value) is None:
        raise ValueError(f"'{value[:64]}' is no domain such as 'penstock.dev'")
    return value


def _check_quantity(value: str) -> str:
    if _QUANTITY.fullmatch(value) is None:
        raise ValueError(f"'{value[:32]}' is no quantity such as '5m' or '32Mi'")
    return value


def _check_image(value: str) -> str:
    if _IMAGE.fullmatch(value) is None:
        raise ValueError(f"'{value[:64]}' is no name of an image")
    return value


def _check_readable(value: SecretRef) -> SecretRef:
    if value.scheme == "vault":
        raise ValueError("expected a 'file:' or 'env:' reference")
    return value


ObjectName = Annotated[str, AfterValidator(_check_name)]
Quantity = Annotated[str, AfterValidator(_check_quantity)]
Token = Annotated[Secret, AfterValidator(_check_readable)]


class AdmissionListen(Section):
    """Where it listens."""

    webhook: EndpointText = Endpoint(_EVERYWHERE, 9443)
    """For the API server, over TLS."""

    metrics: EndpointText = Endpoint(_EVERYWHERE, 9402)
    """For probes and metrics, without TLS."""

    certificate: AbsolutePath = Path("/var/run/penstock/tls/tls.crt")
    """PEM chain of its own certificate, leaf first; taken up when it changes."""

    key: AbsolutePath = Path("/var/run/penstock/tls/tls.key")
    """PEM private key of that certificate."""


class BrokerAccess(Section):
    """The broker's operator API, which is asked about each pod."""

    url: HttpsUrl = Field(examples=["https://penstock-operators.penstock.svc:8446"])
    """Where it is."""

    anchors: AbsolutePath = Path("/var/run/penstock/trust/ca.crt")
    """PEM file of the roots that its certificate is believed by."""

    token: Token = SecretRef("file", "/var/run/secrets/penstock-operators/token")
    """Token that says who we are, made for the operator API's audience; read for each question."""

    timeout: Duration = timedelta(seconds=7)
    """How long it is asked for one pod, again and again where it is away. The API server has to
    wait for longer."""


class ClusterAccess(Section):
    """The cluster's API server."""

    server: HttpsUrl = "https://kubernetes.default.svc"
    """Where it is."""

    token: Token = SecretRef("file", f"{_SERVICE_ACCOUNT}/token")
    """Token of our service account; read for each request."""

    ca_bundle: AbsolutePath = Path(f"{_SERVICE_ACCOUNT}/ca.crt")
    """PEM file of the roots that it is believed by."""


class TrustSection(Section):
    """The roots that agents believe the broker by, and where pods find them."""

    source: ObjectName = "penstock-trust"
    """The broker's ConfigMap in our own namespace; its key `ca.crt` holds them."""

    copy_name: ObjectName = Field(default="penstock-trust", alias="copy")
    """What the copies are called in the namespaces that opted in."""


class WebhooksSection(Section):
    """Our own webhook configurations, whose `caBundle` is kept right."""

    mutating: ObjectName | None = Field(default="penstock-admission")
    """Name of the mutating one; null: it is left alone."""

    validating: ObjectName | None = Field(default="penstock-admission")
    """Name of the validating one; null: it is left alone."""


class TriedPolicies(Section):
    """ConfigMaps with policies, which are tried before they are stored."""

    config: AbsolutePath = Field(examples=["/etc/penstock/penstock.yaml"])
    """The broker's configuration, against which they are held."""

    config_map: ObjectName | None = Field(default=None, examples=["penstock-config"])
    """ConfigMap of our namespace that has that file. It is asked for at each trial: what is applied
    together is then held together, though the file that is mounted here is still the one before.
    Without it, or while it is not there: the file."""


class SidecarSection(Section):
    """What is put beside an application."""

    image: Annotated[str, AfterValidator(_check_image)] = Field(
        examples=["registry.example/penstock-agent:0.1.0"]
    )
    """The agent's image."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When it is fetched."""

    broker_url: HttpsUrl = Field(examples=["https://penstock-agents.penstock.svc:8445"])
    """Where agents reach the broker."""

    audience: str = Field(default="penstock", min_length=1, max_length=200)
    """Audience of the token that the agent enrols by, as `agents.clusters` of the broker has it."""

    token_lifetime: Duration = timedelta(hours=1)
    """How long that token lives; the kubelet replaces it before."""

    cpu_request: Quantity = "5m"
    """CPU that the sidecar is given at least."""

    memory_request: Quantity = "32Mi"
    """Memory that it is given at least."""

    memory_limit: Quantity = "64Mi"
    """Memory that it may take, its volumes in memory included."""

    start_within: Duration = timedelta(minutes=10)
    """How long it may take until the certificate is there, before the container is started anew."""

    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Where each agent serves its metrics to the cluster; 0: nowhere."""

    @field_validator("token_lifetime")
    @classmethod
    def _is_long_enough(cls, value: timedelta) -> timedelta:
        if value < SHORTEST_TOKEN:
            raise ValueError("token_lifetime is shorter than 10m, the least that Kubernetes takes")
        return value


class AdmissionConfig(Section):
    """The whole file."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    """Version of this file's form."""

    kind: Literal["Admission"]
    """What the file describes."""

    cluster: ConfigName = Field(examples=["prod"])
    """What the broker calls this cluster, under `agents.clusters`."""

    namespace: ObjectName = Field(examples=["penstock"])
    """Our own namespace."""

    annotation_prefix: Annotated[str, AfterValidator(_check_prefix)] = "penstock.dev"
    """What annotations and labels begin with."""

    listen: AdmissionListen = Field(default_factory=AdmissionListen)
    """Where it listens."""

    broker: BrokerAccess
    """The broker's operator API."""

    kubernetes: ClusterAccess = Field(default_factory=ClusterAccess)
    """The cluster's API server."""

    trust: TrustSection = Field(default_factory=TrustSection)
    """The roots, and their copies."""

    webhooks: WebhooksSection = Field(default_factory=WebhooksSection)
    """Our own webhook configurations."""

    policies: TriedPolicies | None = Field(default=None, json_schema_extra={"instead": True})
    """Without it ConfigMaps with policies are stored untried."""

    sidecar: SidecarSection
    """What is put beside an application."""

    log: Log = Field(default_factory=Log)
    """What is logged."""


def load_admission(path: Path) -> AdmissionConfig:
    """Return the configuration that lies at *path*.

    Raises:
        Broken: It cannot be read.
        Faults: All that is wrong with it, with lines.
    """
    return load_model(read_text(path), str(path), AdmissionConfig)[0]
