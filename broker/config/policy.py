"""The section on how policies come into force."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from broker.config.section import ConfigName, Section
from broker.policy.manifest import key_fingerprint, parse_verify_key
from broker.policy.units import Duration

__all__ = ["PolicyBundle", "PolicySection", "PolicySigner"]

SHORTEST_LOOK: Final = timedelta(milliseconds=100)
"""Shortest pause between looks at the policy files: each costs a stat(2) of every one."""


def _check_key(value: str) -> str:
    parse_verify_key(value)
    return value


class PolicySigner(Section):
    """A person who may sign policies."""

    name: ConfigName = Field(examples=["anna"])
    """Who it is; stands in the log, the audit and `policy status`."""

    key: Annotated[str, AfterValidator(_check_key)] = Field(
        examples=["MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]
    )
    """Public key, Ed25519 or ECDSA P-256, as `openssl pkey -pubout` prints it; the lines with
    dashes may be left out."""


class PolicyBundle(Section):
    """Signed policies. Files that are not signed by enough people are refused."""

    signers: tuple[PolicySigner, ...] = Field(min_length=1)
    """Whose signatures count."""

    needed: int = Field(default=1, ge=1, le=64)
    """How many of them have to sign."""

    audience: ConfigName = "penstock"
    """Which manifests are for this broker, so that what was signed for another is refused."""

    @model_validator(mode="after")
    def _check_signers(self) -> PolicyBundle:
        if len({one.name for one in self.signers}) < len(self.signers):
            raise ValueError("two signers have one name")
        keys = {key_fingerprint(parse_verify_key(one.key)) for one in self.signers}
        if len(keys) < len(self.signers):
            raise ValueError("two signers have one key, and would count as two")
        if self.needed > len(self.signers):
            raise ValueError(f"{self.needed} are needed and there are {len(self.signers)} signers")
        return self


class PolicySection(Section):
    """How policies come into force."""

    look_every: Duration = timedelta(seconds=1)
    """How often it is looked whether policy files have changed. They are read once they have
    stayed the same from one look to the next."""

    bundle: PolicyBundle | None = Field(default=None, json_schema_extra={"instead": True})
    """Who has to sign them. Without it whoever may write the files decides."""

    @model_validator(mode="after")
    def _check_pause(self) -> PolicySection:
        if self.look_every < SHORTEST_LOOK:
            raise ValueError("look_every is shorter than 100ms")
        return self
