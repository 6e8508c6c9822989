"""The part of the desk that tells how an order would be decided, and by which rules.

Whoever asks says what the order would bring with it: who, from where, with which client
certificate, when.  What is not said is as store and clock have it now.  Nothing is ordered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.records import AccountRecord
from broker.operations import views
from broker.operations.rooms import Desk
from broker.policy.chains import explain_name
from broker.policy.decisions import ClientCertificate, NewOrderFacts
from broker.protocol.encoding import parse_timestamp
from broker.protocol.identifiers import parse_written_identifier
from broker.protocol.resources import AccountStatus
from broker.web.operator import OperationError

__all__ = ["ExplainingDesk"]

NO_FINGERPRINT: Final = "0" * 64
"""Stands for the fingerprint of a client certificate of which the names alone are given.

Cases of policies have the same (``policy.case_form``): it is no certificate's, and it is not empty,
which in an expression means that none was shown.
"""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ExplainingDesk(Desk):
    """The command that explains."""

    async def policy_explain(
        self,
        *,
        names: Sequence[str],
        community: str = "default",
        account: str | None = None,
        eab: str | None = None,
        profile: str | None = None,
        node: str | None = None,
        address: str | None = None,
        client_names: Sequence[str] | None = None,
        client_fingerprint: str | None = None,
        at: str | None = None,
        renewal: bool | None = None,
    ) -> Any:
        """Return how an order for *names* would be decided, and why."""
        supposed = _Supposed(
            origin=_origin(address, client_names or (), client_fingerprint),
            at=None if at is None else _moment(at),
            is_renewal=renewal,
        )
        if node is not None:
            account = await self._account_of_node(node)
        asker = (
            await self._account(account) if account is not None else self._nobody(community, eab)
        )
        self._check_community(asker.community)
        facts = supposed.of(
            await self._rooms.planner.facts(
                asker,
                identifiers=tuple(parse_written_identifier(name) for name in names),
                profile=profile,
                not_before=None,
                not_after=None,
                origin=supposed.origin,
            )
        )
        document = self._rooms.policies.current(asker.community)
        return {
            "names": list(names),
            "community": asker.community,
            "owner": facts.requester.owner,
            "frozen": await self._frozen(asker),
            "caa": str(document.caa),
            "request": supposed.view(facts),
            **views.explanation_view(explain_name(document, facts)),
        }

    async def _frozen(self, asker: AccountRecord) -> str | None:
        """Return what of *asker* is frozen, whatever policy says."""
        freezes = self._rooms.freezes
        found = None if freezes is None else await freezes.of_account(asker)
        return None if found is None else str(found)

    async def _account_of_node(self, node: str) -> str:
        found = await self._store.find_node(node)
        if found is None:
            raise OperationError(f"there is no node '{node}'", "see penstock node list")
        return found.account_id

    def _nobody(self, community: str, eab: str | None) -> AccountRecord:
        """Return an account that is in no store, bound by *eab*, to ask in its name."""
        return AccountRecord(
            account_id="nobody",
            community=community,
            status=AccountStatus.VALID,
            jwk_json="{}",
            thumbprint="",
            contacts=(),
            terms_agreed=False,
            eab_key_id=eab,
            created_at=self._rooms.clock.now(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Supposed:
    """What is supposed of the request; None: it is as it is now."""

    origin: Origin
    at: datetime | None
    is_renewal: bool | None

    def of(self, facts: NewOrderFacts) -> NewOrderFacts:
        """Return *facts* with all that is supposed.

        Raises:
            OperationError: The order of a node is supposed to come from somewhere.
        """
        node = facts.requester.node
        if node is not None and self.origin != NOWHERE:
            raise OperationError(
                f"orders of node '{node}' have no address and no client certificate",
                "the broker orders for nodes; ask without them",
            )
        known = facts.is_unchanged_renewal
        return replace(
            facts,
            at=facts.at if self.at is None else self.at,
            is_unchanged_renewal=known if self.is_renewal is None else self.is_renewal,
        )

    def view(self, facts: NewOrderFacts) -> views.View:
        """Return what was supposed, as an operator is told it."""
        shown = self.origin.client_certificate
        fingerprint = None if shown is None else shown.fingerprint
        return {
            "address": self.origin.address,
            "client_names": [] if shown is None else list(shown.names),
            "client_fingerprint": None if fingerprint == NO_FINGERPRINT else fingerprint,
            "at": views.time_view(self.at),
            "renewal": facts.is_unchanged_renewal,
        }


def _origin(address: str | None, names: Sequence[str], fingerprint: str | None) -> Origin:
    """Return where the request is supposed to come from, as the ACME listener would see it."""
    shown = None
    if names or fingerprint is not None:
        shown = ClientCertificate(
            fingerprint=NO_FINGERPRINT if fingerprint is None else _fingerprint(fingerprint),
            # A URI keeps its spelling, as ``web.origins`` has it.
            names=tuple(name if ":" in name else name.lower() for name in names),
        )
    return Origin(address=None if address is None else _address(address), client_certificate=shown)


def _address(text: str) -> str:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise OperationError(
            f"'{text[:64]}' is no IP address", "such as 192.0.2.7 or 2001:db8::7"
        ) from None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(found if mapped is None else mapped)


def _fingerprint(text: str) -> str:
    found = text.removeprefix("sha256:").replace(":", "").lower()
    if _FINGERPRINT.fullmatch(found) is None:
        raise OperationError(
            f"'{text[:80]}' is no SHA-256 fingerprint", "64 hexadecimal digits, as openssl has them"
        )
    return found


def _moment(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise OperationError(f"'{text[:40]}' {error}") from None
