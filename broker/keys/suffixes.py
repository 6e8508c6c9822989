"""The public suffix list, as shipped with a dated package; nothing is fetched."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import publicsuffixlist

__all__ = ["LIST_VERSION", "PackagedPublicSuffixes"]

LIST_VERSION: Final = publicsuffixlist.__version__
"""Version of the packaged list; its last part is the date of the data."""


class PackagedPublicSuffixes:
    """Implements ``issuance.ports.PublicSuffixes`` over the packaged list.

    Both halves of the list count, registries and private owners alike, and so does the rule
    that an unlisted top-level name is a suffix: ``*.internal`` is as wide as ``*.com``.
    """

    def is_public_suffix(self, name: str) -> bool:
        """Return whether *name* (A-labels) is itself a public suffix."""
        return self._suffixes.is_public(name)

    @cached_property
    def _suffixes(self) -> publicsuffixlist.PublicSuffixList:
        return publicsuffixlist.PublicSuffixList(accept_unknown=True, only_icann=False)
