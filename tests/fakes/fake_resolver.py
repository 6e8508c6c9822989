"""A resolver whose answers a test writes down, and which counts the questions."""

import ipaddress
from collections import Counter
from collections.abc import Sequence

from broker.protocol.caa import CaaRecord
from broker.validation.resolver import NameNotFound, ResolutionFailed
from broker.validation.targets import IpAddress


class FakeResolver:
    """``validation.resolver.Resolver`` without DNS.

    ``hosts`` maps a name to the answers it gives one after the other; the last one is repeated.
    An answer is a list of addresses, or an exception to raise.  ``records`` holds TXT records,
    ``authorizations`` CAA records.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, list[Sequence[str] | Exception]] = {}
        self.records: dict[str, Sequence[bytes] | Exception] = {}
        self.authorizations: dict[str, Sequence[CaaRecord] | Exception] = {}
        self.asked: Counter[str] = Counter()

    async def addresses(self, name: str) -> Sequence[IpAddress]:
        answers = self.hosts.get(name, [NameNotFound(f"{name} does not exist (NXDOMAIN)")])
        answer = answers[min(self.asked[name], len(answers) - 1)]
        self.asked[name] += 1
        if isinstance(answer, Exception):
            raise answer
        return [ipaddress.ip_address(text) for text in answer]

    async def caa(self, name: str) -> Sequence[CaaRecord]:
        self.asked[name] += 1
        answer = self.authorizations.get(name, NameNotFound(f"{name} does not exist (NXDOMAIN)"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def texts(self, name: str) -> Sequence[bytes]:
        self.asked[name] += 1
        answer = self.records.get(name, NameNotFound(f"{name} does not exist (NXDOMAIN)"))
        if isinstance(answer, Exception):
            raise answer
        return answer


SERVFAIL = ResolutionFailed("no resolver answers: SERVFAIL")
"""What a resolver says that cannot reach the zone's servers."""
