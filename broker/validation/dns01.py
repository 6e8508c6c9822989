"""dns-01 and dns-account-01: read the TXT records of RFC 8555 §8.4.

They differ in the name alone.  Aliases are followed by the resolver, which is how validation is
delegated to another zone.
"""

from __future__ import annotations

import asyncio

from broker.issuance.errors import Broken
from broker.issuance.ports import Question
from broker.protocol.challenges import (
    ChallengeType,
    Failure,
    Observation,
    dns01_name,
    dns_account01_name,
)
from broker.validation.resolver import NameNotFound, ResolutionFailed, Resolver
from broker.validation.targets import ValidationSettings

__all__ = ["Dns01"]


class Dns01:
    """Looks for answers in DNS through one community's resolvers."""

    def __init__(self, settings: ValidationSettings, resolver: Resolver) -> None:
        self._settings = settings
        self._resolver = resolver

    async def observe(self, question: Question) -> Observation:
        """Return the records that were found, or why none can be.

        Raises:
            Broken: A question for dns-account-01 came without the account's URL.
        """
        name = _name(question)
        answers: tuple[bytes, ...] = ()
        failure: Failure | None = None
        limit = self._settings.timeout
        try:
            async with asyncio.timeout(limit.total_seconds()):
                answers = tuple(await self._resolver.texts(name))
        except TimeoutError:
            failure = Failure("timeout", f"no answer within {limit.total_seconds():g} s")
        except (NameNotFound, ResolutionFailed) as error:
            failure = Failure("dns", str(error))
        return Observation(question.type, name, (), answers, failure)


def _name(question: Question) -> str:
    if question.type is ChallengeType.DNS_01:
        return dns01_name(question.identifier)
    if question.account_url is None:
        raise Broken(f"{question.type} cannot be looked at without the account's URL")
    return dns_account01_name(question.identifier, question.account_url)
