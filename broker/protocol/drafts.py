"""Every wire name taken from an unfinished draft, with the revision it was read in.

A draft may rename its members overnight.  Such a name stands here once and
nowhere else, so that following a draft is a change to one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft and the one revision whose text our code was written from."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name}-{self.revision}"


PROFILES: Final = Draft("draft-ietf-acme-profiles", "00")
"""Named classes of issuance, chosen by the client in newOrder."""

PROFILE_MEMBER: Final = "profile"
"""Member of newOrder and of the order object: the chosen profile's name."""

PROFILES_META_MEMBER: Final = "profiles"
"""Member of the directory's ``meta``: an object from profile name to a text or URL."""

INVALID_PROFILE_TOKEN: Final = "invalidProfile"
"""Problem type for a profile that is not offered or does not fit the request."""

DNS_ACCOUNT_LABEL: Final = Draft("draft-ietf-acme-dns-account-label", "03")
"""dns-01 under a label of the account's own."""

DNS_ACCOUNT_01: Final = "dns-account-01"
"""The challenge's type, the same in all revisions since -00."""
