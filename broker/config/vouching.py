"""What lets a node enrol beside tokens and people: a cluster's word, or a certificate it has."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator, model_validator

from broker.config.section import ConfigName, PatternText, ProfileName, Section
from broker.config.values import AbsolutePath, HttpsUrl, Secret, SecretRef
from broker.policy.names import parse_pattern

__all__ = ["ClientCertificateRule", "ClusterRuleSection", "ClusterSection", "TokenReviewSection"]

_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_WORDS: Final = frozenset({"cluster", "namespace", "service_account", "pod"})


def _check_template(text: str) -> str:
    for word in _PLACE.findall(text):
        if word not in _WORDS:
            raise ValueError(f"'{{{word}}}' is none of {', '.join(sorted(_WORDS))}")
    # Each word stands for one label or a part of one.
    parse_pattern(_PLACE.sub("x", text))
    return text


class ClusterRuleSection(Section):
    """What the pods of some service accounts may be."""

    namespaces: tuple[str, ...] = Field(min_length=1, examples=[["mail"]])
    """Names of namespaces; `*` stands for all."""

    service_accounts: tuple[str, ...] = Field(min_length=1, examples=[["postfix"]])
    """Names of service accounts; `*` stands for all."""

    node: str = Field(
        default="{pod}.{namespace}.{cluster}", examples=["{pod}.{namespace}.{cluster}"]
    )
    """What the node is called. `{cluster}`, `{namespace}`, `{service_account}` and `{pod}` stand
    for what the token proves. A pod that starts anew takes the place of the one of its name."""

    community: ConfigName = Field(default="default", examples=["default"])
    """Its community."""

    names: tuple[str, ...] = Field(
        default=(), examples=[["{service_account}.{namespace}.svc.prod.example"]]
    )
    """Patterns of the names that it may have, with the same words in braces. An empty list: what
    policy says."""

    profiles: tuple[ProfileName, ...] = ()
    """Profiles that it may order by. An empty list: what policy says."""

    owner: str = Field(default="", max_length=200)
    """Who answers for it."""

    contact: str = Field(default="", max_length=200)
    """Where they are reached."""

    @field_validator("namespaces", "service_accounts")
    @classmethod
    def _names_of_objects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one != "*" and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", one):
                raise ValueError(f"'{one[:64]}' is no name in Kubernetes, and not '*'")
        return value

    @field_validator("node")
    @classmethod
    def _node_template(cls, value: str) -> str:
        if "*" in value:
            raise ValueError("a node's name has no '*'")
        return _check_template(value)

    @field_validator("names")
    @classmethod
    def _name_templates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_template(one) for one in value)


class TokenReviewSection(Section):
    """An API server that is asked about each token."""

    server: HttpsUrl = Field(examples=["https://10.96.0.1"])
    """Its URL."""

    token: Secret = Field(examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"])
    """What we show to it: a service account that may create `tokenreviews`, as the cluster role
    `system:auth-delegator` lets it. It is read anew each time, so a file may be rotated."""

    @field_validator("token")
    @classmethod
    def _is_readable_here(cls, value: SecretRef) -> SecretRef:
        if value.scheme == "vault":
            raise ValueError("expected a 'file:' or 'env:' reference")
        return value


class ClusterSection(Section):
    """A Kubernetes cluster whose service accounts may enrol, by `keys`, `keys_url` or `review`."""

    issuer: str = Field(
        min_length=1, max_length=500, examples=["https://kubernetes.default.svc.cluster.local"]
    )
    """Issuer of its tokens: `issuer` of `/.well-known/openid-configuration` at its API server."""

    audience: str = Field(default="penstock", min_length=1, max_length=200)
    """Audience that a token has to be made for, so that no other one of the pod's is taken."""

    keys: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/clusters/prod.jwks"])
    """File with the issuer's public keys: what `kubectl get --raw /openid/v1/jwks` prints."""

    keys_url: HttpsUrl | None = Field(
        default=None,
        examples=["https://kubernetes.default.svc/openid/v1/jwks"],
        json_schema_extra={"instead": True},
    )
    """Where the issuer publishes them. They are read every ten minutes, and used for a day while
    it cannot be reached."""

    review: TokenReviewSection | None = Field(default=None, json_schema_extra={"instead": True})
    """The API server to ask about each token; it also knows which pods are gone."""

    ca_bundle: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/clusters/prod-ca.pem"]
    )
    """PEM file of the only roots that `keys_url` or `review` is trusted by. Without it: those of
    the system."""

    rules: tuple[ClusterRuleSection, ...] = Field(min_length=1)
    """Who may be what; the first that fits counts."""

    @model_validator(mode="after")
    def _one_way(self) -> ClusterSection:
        ways = [one for one in (self.keys, self.keys_url, self.review) if one is not None]
        if len(ways) != 1:
            raise ValueError("expected one of keys, keys_url and review")
        return self


class ClientCertificateRule(Section):
    """What the holders of some client certificates may be."""

    names: tuple[PatternText, ...] = Field(default=(), examples=[["*.hosts.corp.example"]])
    """Patterns of DNS names in the certificate; the one that is covered is the node's name."""

    subjects: tuple[str, ...] = Field(default=(), examples=[["CN=mail-01,O=Example"]])
    """Whole subjects (RFC 4514), of which it has to have one. An empty list: any."""

    node: str | None = Field(
        default=None, examples=["mail-01.corp.example"], json_schema_extra={"instead": True}
    )
    """The node's name, for a certificate that has no DNS name."""

    community: ConfigName = Field(default="default", examples=["default"])
    """Its community."""

    may_have: tuple[PatternText, ...] = Field(default=(), examples=[["mail.corp.example"]])
    """Patterns of the names that it may have. An empty list: what policy says."""

    profiles: tuple[ProfileName, ...] = ()
    """Profiles that it may order by. An empty list: what policy says."""

    owner: str = Field(default="", max_length=200)
    """Who answers for it."""

    contact: str = Field(default="", max_length=200)
    """Where they are reached."""

    @model_validator(mode="after")
    def _says_who(self) -> ClientCertificateRule:
        if (self.node is None) != bool(self.names):
            raise ValueError("expected names, or node with subjects")
        if self.node is not None:
            if not self.subjects:
                raise ValueError("a rule with node needs subjects")
            if "*" in str(parse_pattern(self.node)):
                raise ValueError("a node's name has no '*'")
        return self
