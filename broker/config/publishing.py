"""What the broker makes findable for others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from pydantic import Field, field_validator

from broker.config.section import ConfigName, Section
from broker.config.values import AbsolutePath, HttpsUrl, Secret, SecretRef
from broker.policy.yamlfile import Fault, Lines

if TYPE_CHECKING:
    from broker.config.model import Config

__all__ = ["Publishing", "TrustConfigMap", "check_publishing"]

_OBJECT: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)


class TrustConfigMap(Section):
    """A ConfigMap of Kubernetes in which the broker keeps its trust anchors; it has to be there."""

    server: HttpsUrl = Field(examples=["https://kubernetes.default.svc"])
    """URL of the API server."""

    token: Secret = Field(examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"])
    """What we show to it: a service account that may `get` and `patch` this ConfigMap. It is read
    anew each time, so a file may be rotated."""

    ca_bundle: AbsolutePath | None = Field(
        default=None, examples=["/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"]
    )
    """PEM file of the only roots that it is trusted by. Without it: those of the system."""

    namespace: str = Field(examples=["penstock"])
    """Its namespace."""

    name: str = Field(default="penstock-trust", examples=["penstock-trust"])
    """Its name."""

    key: str = Field(default="ca.crt", examples=["ca.crt"])
    """Which of its keys holds the anchors, as PEM. The others are left alone."""

    communities: tuple[ConfigName, ...] = Field(default=(), examples=[["default"]])
    """Communities whose anchors it holds. An empty list: all."""

    also: tuple[AbsolutePath, ...] = Field(default=(), examples=[["/etc/penstock/tls/ca.crt"]])
    """PEM files of further roots, such as that of a listener's certificate which somebody else
    issues."""

    @field_validator("namespace", "name")
    @classmethod
    def _names_of_objects(cls, value: str) -> str:
        if not _OBJECT.fullmatch(value):
            raise ValueError(f"'{value[:64]}' is no name in Kubernetes")
        return value

    @field_validator("key")
    @classmethod
    def _key_of_a_map(cls, value: str) -> str:
        if not _KEY.fullmatch(value):
            raise ValueError(f"'{value[:64]}' is no key of a ConfigMap")
        return value

    @field_validator("token")
    @classmethod
    def _is_readable_here(cls, value: SecretRef) -> SecretRef:
        if value.scheme == "vault":
            raise ValueError("expected a 'file:' or 'env:' reference")
        return value


class Publishing(Section):
    """What is made findable for others."""

    trust: TrustConfigMap
    """Where trust anchors are kept for pods of a cluster."""


def check_publishing(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield communities that are not there."""
    if config.publishing is None:
        return
    for place, name in enumerate(config.publishing.trust.communities):
        if name not in config.communities:
            near = get_close_matches(name, list(config.communities), 1)
            hint = f"did you mean '{near[0]}'?" if near else "define it in communities"
            yield lines.fault(
                ("publishing", "trust", "communities", place),
                f"community '{name}' is not defined",
                hint,
            )
