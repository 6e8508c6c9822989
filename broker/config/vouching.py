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
_LABEL_ENDS: Final = re.compile(r"[.@]")
_WORDS: Final = frozenset({"cluster", "namespace", "service_account", "pod"})
_NAME_WORDS: Final = _WORDS | {"service"}


def _check_template(text: str, words: frozenset[str] = _WORDS) -> str:
    for word in _PLACE.findall(text):
        if word not in words:
            raise ValueError(f"'{{{word}}}' is none of {', '.join(sorted(words))}")
    # Each word stands for one label or a part of one; two in one label can be told apart by no
    # letter, for 'a' of 'b-c' and 'a-b' of 'c' make the same.
    for label in _LABEL_ENDS.split(text):
        places = [found[0] for found in _PLACE.finditer(label)]
        if len(places) > 1:
            raise ValueError(
                f"'{label}' has more than one word in a label, so that two namespaces could come "
                f"to one name: write a label for each word, as '{'.'.join(places)}'"
            )
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
    """Patterns of the names that it may have, with the same words in braces; `{service}` makes one
    for each Service that selects the pod. An empty list: what policy says."""

    profiles: tuple[ProfileName, ...] = ()
    """Profiles that it may order by. An empty list: what policy says."""

    upstreams: tuple[ConfigName, ...] = Field(default=(), examples=[["local"]])
    """The only upstreams that issue for it. An empty list: the built-in CAs. Any other one issues
    under a quota of the policy `per: workload` alone."""

    shared_with: tuple[ConfigName, ...] = Field(default=(), examples=[["staging"]])
    """Other clusters that may have the same names. Both rules have to say so; else it is a fault
    that a name can be had from two clusters."""

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
        return tuple(_check_template(one, _NAME_WORDS) for one in value)

    @model_validator(mode="after")
    def _names_of_one_pod(self) -> ClusterRuleSection:
        told = " ".join(self.names)
        for word in ("pod", "service"):
            if f"{{{word}}}" in told and "{pod}" not in self.node:
                raise ValueError(f"names have '{{{word}}}', so node needs '{{pod}}'")
        return self


def _check_readable(value: SecretRef | None) -> SecretRef | None:
    if value is not None and value.scheme == "vault":
        raise ValueError("expected a 'file:' or 'env:' reference")
    return value


class TokenReviewSection(Section):
    """An API server that is asked about each token."""

    server: HttpsUrl = Field(examples=["https://10.96.0.1"])
    """Its URL."""

    token: Secret = Field(examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"])
    """What we show to it: a service account that may create `tokenreviews`, as the cluster role
    `system:auth-delegator` lets it. It is read anew each time, so a file may be rotated."""

    _is_readable_here = field_validator("token")(_check_readable)


class PodsSection(Section):
    """An API server that is asked which Services select a pod, and whether it is still there."""

    server: HttpsUrl = Field(examples=["https://10.96.0.1"])
    """Its URL."""

    token: Secret = Field(examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"])
    """What we show to it: a service account that may `get` pods and `list` services. It is read
    anew each time, so a file may be rotated."""

    _is_readable_here = field_validator("token")(_check_readable)


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

    keys_token: Secret | None = Field(
        default=None,
        examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"],
        json_schema_extra={"instead": True},
    )
    """What we show for `keys_url`: an API server lets service accounts alone read its keys."""

    review: TokenReviewSection | None = Field(default=None, json_schema_extra={"instead": True})
    """The API server to ask about each token; it also knows which pods are gone."""

    pods: PodsSection | None = Field(default=None, json_schema_extra={"instead": True})
    """The API server to ask about pods and Services, which `{service}` needs. Without it: none."""

    ca_bundle: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/clusters/prod-ca.pem"]
    )
    """PEM file of the only roots that `keys_url`, `review` or `pods` is trusted by. Without it:
    those of the system."""

    rules: tuple[ClusterRuleSection, ...] = Field(min_length=1)
    """Who may be what; the first that fits counts."""

    @model_validator(mode="after")
    def _one_way(self) -> ClusterSection:
        ways = [one for one in (self.keys, self.keys_url, self.review) if one is not None]
        if len(ways) != 1:
            raise ValueError("expected one of keys, keys_url and review")
        if self.keys_token is not None and self.keys_url is None:
            raise ValueError("keys_token is for keys_url, which is missing")
        if self.pods is None and any("{service}" in name for r in self.rules for name in r.names):
            raise ValueError("names have '{service}', so pods has to name an API server")
        return self

    _is_readable_here = field_validator("keys_token")(_check_readable)


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
