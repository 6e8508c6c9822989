"""Who owns what is written: users and groups by name or by number.

A number needs no entry in the host's lists, so that a host with a thousand organisations may number
them as it likes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["KEEP", "OwnerFault", "Ownership", "find_ownership"]

KEEP: Final = -1
"""Leave it as it is, in the words of chown(2)."""

LARGEST_ID: Final = 2**32 - 2
"""Highest id of a user or group; the one above it means "none" to the kernel."""


class OwnerFault(Exception):
    """A user or group of the configuration is not known to this host."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """To whom a file is given; KEEP for whoever writes it."""

    uid: int = KEEP
    gid: int = KEEP

    @property
    def is_own(self) -> bool:
        """Whether nothing has to be given away."""
        return self.uid in (KEEP, os.geteuid()) and self.gid in (KEEP, os.getegid())

    def or_as(self, uid: int, gid: int) -> Ownership:
        """Return it with what it leaves open taken from a file that was there before."""
        return Ownership(
            uid if self.uid == KEEP else self.uid, gid if self.gid == KEEP else self.gid
        )


def find_ownership(owner: str | None, group: str | None) -> Ownership:
    """Return the ids of a user and a group.

    Raises:
        OwnerFault: One of them is not known.
    """
    return Ownership(_find(owner, "user"), _find(group, "group"))


def _find(name: str | None, kind: str) -> int:
    if name is None:
        return KEEP
    if name.isascii() and name.isdigit():
        if int(name) > LARGEST_ID:
            raise OwnerFault(f"{kind} {name[:20]} is past {LARGEST_ID}")
        return int(name)
    try:
        if kind == "user":
            import pwd

            return pwd.getpwnam(name).pw_uid
        import grp

        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OwnerFault(f"{kind} {name[:80]!r} is not known to this host") from None
