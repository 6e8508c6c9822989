"""Handing over a certificate: the chain that is asked for, to the account that ordered it.

The chain under a URL never changes.  Others that the CA offers have URLs of their own here; where
they came from is told to nobody (RFC 8555 §7.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.records import AccountRecord
from broker.issuance.renewal_ports import ChainStore
from broker.issuance.retirements import Retirements
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Handed", "Handover"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """One chain of a certificate."""

    chain_pem: bytes
    number: int
    """0 for the default chain."""
    chains: int
    """How many chains there are, this one too."""


class Handover:
    """The workflow of the certificate resource."""

    def __init__(self, chains: ChainStore, retirements: Retirements) -> None:
        self._chains = chains
        self._retirements = retirements

    async def certificate(
        self, account: AccountRecord, certificate_id: str, number: int = 0
    ) -> Handed:
        """Return a chain of a released certificate of the account's own.

        Raises:
            Problem: There is no such certificate for this account, or no chain of that number.
        """
        found = await self._chains.find_with_chains(certificate_id)
        if found is None or not found[0].is_released or found[0].account_id != account.account_id:
            raise Problem(ProblemType.MALFORMED, "no such certificate here", status=404)
        certificate, alternates = found
        chains = (certificate.chain_pem, *alternates)
        if not 0 <= number < len(chains):
            raise Problem(ProblemType.MALFORMED, "no such chain of this certificate", status=404)
        try:
            await self._retirements.note_use(certificate)
        except (Unreachable, Broken) as error:
            # The client has its certificate; it will be noted when it is fetched the next time.
            log.warning("use of a certificate not noted", reason=error.reason)
        return Handed(chain_pem=chains[number], number=number, chains=len(chains))
