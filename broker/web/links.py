"""URLs: made here, and read back here.

Every URL that a client sees is built from the one configured ``external_url``; what a request
says about its own host (``Host``, ``X-Forwarded-*``) is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from broker.issuance.records import AuthorizationRecord, OrderRecord
from broker.protocol.problems import ProblemType

__all__ = ["CURSOR", "DEFAULT_COMMUNITY", "ID_PATTERN", "CommunityLinks", "Links"]

DEFAULT_COMMUNITY: Final = "default"
"""The community whose directory also stands at ``/acme/directory``."""

ID_PATTERN: Final = r"[A-Za-z0-9_-]{1,64}"
"""How our own ids look in a path; anything else is no resource of ours."""

CURSOR: Final = "after"
"""Name of the query parameter that says where a page of a list begins."""

_ID: Final = re.compile(ID_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class CommunityLinks:
    """The URLs of one community."""

    base: str
    """Such as ``https://acme.corp.example/acme/default``."""

    @property
    def directory(self) -> str:
        """Return the directory's URL."""
        return f"{self.base}/directory"

    @property
    def new_nonce(self) -> str:
        """Return the newNonce URL."""
        return f"{self.base}/new-nonce"

    @property
    def new_account(self) -> str:
        """Return the newAccount URL."""
        return f"{self.base}/new-account"

    @property
    def new_order(self) -> str:
        """Return the newOrder URL."""
        return f"{self.base}/new-order"

    @property
    def revoke_certificate(self) -> str:
        """Return the revokeCert URL."""
        return f"{self.base}/revoke-cert"

    @property
    def new_authorization(self) -> str:
        """Return the newAuthz URL."""
        return f"{self.base}/new-authz"

    @property
    def key_change(self) -> str:
        """Return the keyChange URL."""
        return f"{self.base}/key-change"

    def orders(self, account_id: str, *, after: str | None = None) -> str:
        """Return the URL of a page of an account's orders list, by default the first."""
        first = f"{self.account(account_id)}/orders"
        return first if after is None else f"{first}?{CURSOR}={after}"

    def account(self, account_id: str) -> str:
        """Return an account's URL, which is also its ``kid``."""
        return f"{self.base}/account/{account_id}"

    def order(self, order_id: str) -> str:
        """Return an order's URL."""
        return f"{self.base}/order/{order_id}"

    def finalize(self, order: OrderRecord) -> str:
        """Return the URL at which an order is finalized."""
        return f"{self.order(order.order_id)}/finalize"

    def authorization(self, authorization_id: str) -> str:
        """Return an authorization's URL."""
        return f"{self.base}/authz/{authorization_id}"

    def challenge(self, authorization: AuthorizationRecord, challenge_id: str) -> str:
        """Return the URL of a challenge of *authorization*."""
        return f"{self.base}/challenge/{authorization.authorization_id}/{challenge_id}"

    def certificate(self, certificate_id: str, number: int = 0) -> str:
        """Return the URL of a certificate with its default chain, or with that of *number*."""
        url = f"{self.base}/certificate/{certificate_id}"
        return f"{url}/chain/{number}" if number else url

    def approval(self, approval_id: str) -> str:
        """Return the URL of the page about a request for approval."""
        return f"{self.base}/approval/{approval_id}"

    @property
    def renewal_info(self) -> str:
        """Return the renewalInfo URL, which the CertID of a certificate follows."""
        return f"{self.base}/renewal-info"

    def parse_account(self, kid: str) -> str | None:
        """Return the account id in *kid*, or None when it is no account URL of this community.

        Equality as text, as RFC 8555 §6.2 has it: another host, scheme, path or spelling of the
        same URL is another URL.
        """
        account_id = kid.removeprefix(f"{self.base}/account/")
        if _ID.fullmatch(account_id) is None or kid != self.account(account_id):
            return None
        return account_id


class Links:
    """All URLs under one ``external_url``."""

    def __init__(self, external_url: str, communities: Collection[str]) -> None:
        parts = urlsplit(external_url)
        self._communities = frozenset(communities)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.prefix = parts.path.rstrip("/")

    @property
    def root(self) -> str:
        """Return the path under which everything of ours stands."""
        return f"{self.prefix}/acme"

    def help(self, problem: ProblemType) -> str:
        """Return the URL of our page about a type of problem."""
        return f"{self.origin}{self.root}/help/{problem.token}"

    def of(self, community: str) -> CommunityLinks:
        """Return the URLs of *community*."""
        return CommunityLinks(f"{self.origin}{self.root}/{community}")

    def index_for(self, path: str) -> str | None:
        """Return the directory that an answer for *path* links to (RFC 8555 §7.1).

        The route cannot be asked: a request with a wrong method has none.  None for a path of no
        community, and for the directory, which does not link to itself.
        """
        community, _, resource = path.removeprefix(f"{self.root}/").partition("/")
        if community not in self._communities or resource == "directory":
            return None
        return self.of(community).directory

    def requested(self, raw_path: str) -> str:
        """Return the URL that a request for *raw_path* must have signed (RFC 8555 §6.4)."""
        return self.origin + raw_path
