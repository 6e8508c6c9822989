"""A configuration of an agent with nothing in it but what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.config import (
    AgentConfig,
    BrokerSection,
    CertificateSection,
    EnrolMethod,
    EnrolSection,
    ExpectsSection,
    FilesSection,
    NodeSection,
    ReloadSection,
)

__all__ = ["make_certificate", "make_config"]


def make_certificate(name: str, *, command: str | None = None, **more: Any) -> CertificateSection:
    """Return a section; those with the same *command* share a reload."""
    return CertificateSection(
        name=name,
        names=(f"{name}.example.test",),
        files=FilesSection(directory=f"/certificates/{name}", file=name),
        reload=ReloadSection(command=(command,) if command else ()),
        expects=more.pop("expects", ExpectsSection(anchors="/anchors.pem")),
        **more,
    )


def make_config(
    certificates: Sequence[CertificateSection] = (),
    *,
    enrol: EnrolSection | None = None,
    **more: Any,
) -> AgentConfig:
    """Return a configuration."""
    return AgentConfig(
        node=NodeSection(name="web.example.test", allowed=("/certificates",)),
        broker=more.pop("broker", BrokerSection(url="https://broker.test", anchors="/anchors.pem")),
        enrol=enrol or EnrolSection(method=EnrolMethod.TOKEN, credential="env:JOIN_TOKEN"),
        certificates=tuple(certificates),
        **more,
    )
