"""The section on what precedes a change of the store's form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from broker.config.section import Section
from broker.config.values import AbsolutePath

__all__ = ["Upgrade"]


class Upgrade(Section):
    """What is done before a newer version changes the form of the store."""

    backup: Literal["always", "never"] = "always"
    """Whether a sealed backup is made first. Where it cannot be made, nothing is changed and the
    broker does not start. `never` is for a site that makes its own."""

    backups: AbsolutePath | None = Field(default=None, examples=["/var/lib/penstock/backups"])
    """Directory that they are kept in. Without it: `backups` in the state directory. None of them
    is ever removed."""
