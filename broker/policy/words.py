"""Words that several kinds of policy file share: key kinds, usages, patterns, names.

``form`` and ``rule_form`` are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from broker.policy.names import Pattern as AnyPattern
from broker.policy.names import parse_pattern

__all__ = [
    "USAGE_OIDS",
    "Attestation",
    "CommunityName",
    "KeyKind",
    "KeyUsage",
    "Pattern",
    "ProfileName",
    "Text",
    "Usage",
]


class KeyKind(StrEnum):
    """Certificate keys that a policy may allow, in the words of ``protocol.extensions``."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class Usage(StrEnum):
    """What a certificate is for: its extended key usages."""

    SERVER_AUTH = "server-auth"
    CLIENT_AUTH = "client-auth"
    EMAIL_PROTECTION = "email-protection"


USAGE_OIDS: Final[Mapping[Usage, str]] = {
    Usage.SERVER_AUTH: "1.3.6.1.5.5.7.3.1",
    Usage.CLIENT_AUTH: "1.3.6.1.5.5.7.3.2",
    Usage.EMAIL_PROTECTION: "1.3.6.1.5.5.7.3.4",
}
"""Extended key usages (RFC 5280 §4.2.1.12)."""


class KeyUsage(StrEnum):
    """Key usages that a profile may allow; those of a CA are not among them."""

    DIGITAL_SIGNATURE = "digital-signature"
    KEY_ENCIPHERMENT = "key-encipherment"
    KEY_AGREEMENT = "key-agreement"


class Attestation(StrEnum):
    """Ways in which a node may have been let in, as the configuration of agents calls them."""

    TOKEN = "token"
    KUBERNETES = "kubernetes"
    CERTIFICATE = "certificate"
    APPROVAL = "approval"


def _read_pattern(value: object) -> AnyPattern:
    if not isinstance(value, str):
        raise ValueError("expected a name pattern such as '**.example.com', in quotes")
    return parse_pattern(value)


Pattern = Annotated[
    AnyPattern,
    PlainValidator(_read_pattern),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "examples": ["www.example.com", "**.example.com", "10.20.0.0/16"]}
    ),
]
"""A pattern of names (see ``names``) or of addresses (see ``addresses``)."""

CommunityName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ProfileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
