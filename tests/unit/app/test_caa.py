"""What CAA records may call each upstream."""

from typing import Any

import pytest

from broker.app.caa import ConfiguredIssuers
from broker.issuance.errors import Unreachable
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import Directory, DirectoryMeta
from tests.fakes.clock import START
from tests.unit.config.conftest import parsed

URL = "https://ca.example/directory"
NAME = Identifier(IdentifierType.DNS, "www.corp.example")
WILDCARD = Identifier(IdentifierType.DNS, "*.corp.example")
ADDRESS = Identifier(IdentifierType.IP, "10.0.0.1")


class FakeCa:
    """``Directories`` and what is asked of the store."""

    def __init__(self, *identities: str) -> None:
        self._directory = Directory(
            "https://ca.example/nonce",
            "https://ca.example/account",
            "https://ca.example/order",
            meta=DirectoryMeta(caa_identities=identities),
        )
        self.is_read = False
        self.is_away = False

    def known_directory(self, upstream: str) -> Directory | None:
        """See the port."""
        del upstream
        return self._directory if self.is_read else None

    async def directory(self, upstream: str) -> Directory:
        """See the port."""
        del upstream
        if self.is_away:
            raise Unreachable("the CA is away")
        self.is_read = True
        return self._directory

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None:
        """See the port."""
        return UpstreamAccountRecord(
            upstream=upstream,
            community=community,
            directory_url=URL,
            account_url=f"https://ca.example/acct/{community}",
            key_id="key",
            thumbprint="thumbprint",
            registered_at=START,
        )


def issuers(ca: FakeCa, **more: Any) -> ConfiguredIssuers:
    """Return what is known of a CA that is answered by http-01 and, in one zone, by dns-01."""
    key = {"name": "k", "secret": "env:TSIG"}
    dns = {
        "challenge": "dns-01",
        "names": ["**.corp.example"],
        "rfc2136": {"server": "10.0.0.53:53", "tsig": key},
    }
    acme = {"kind": "acme", "directory": URL, "solvers": [dns, {"challenge": "http-01"}], **more}
    communities = {"default": {"caa_identities": ["pki.corp.example"]}}
    config = parsed({"communities": communities, "upstreams.ca": acme})
    return ConfiguredIssuers(config, directories=ca, store=ca)  # type: ignore[arg-type]


async def test_identities_are_those_of_the_directory() -> None:
    """In lower case, once it was read; before that nothing is known."""
    known = issuers(FakeCa("CA.example"))
    assert not known.is_identified("ca", "default")
    issuer = await known.caa_issuer("ca", "default", [NAME])
    assert issuer.identities == {"ca.example"}
    assert issuer.account_uri == "https://ca.example/acct/default"
    assert known.is_identified("ca", "default")


async def test_configured_identities_replace_those_of_the_directory() -> None:
    """A CA that tells nothing, or something else than its records say."""
    ca = FakeCa("ca.example")
    ca.is_away = True
    known = issuers(ca, caa_identities=["issuer.example"])
    assert known.is_identified("ca", "default")
    assert (await known.caa_issuer("ca", "default", [])).identities == {"issuer.example"}
    with pytest.raises(Unreachable):
        await issuers(ca).caa_issuer("ca", "default", [])


async def test_ca_that_tells_nothing_has_no_identity() -> None:
    """And is not identified by having been asked."""
    known = issuers(FakeCa())
    assert (await known.caa_issuer("ca", "default", [])).identities == frozenset()
    assert not known.is_identified("ca", "default")


async def test_methods_are_those_that_our_solvers_answer() -> None:
    """For each identifier its own."""
    issuer = await issuers(FakeCa()).caa_issuer("ca", "default", [NAME, WILDCARD, ADDRESS])
    assert issuer.methods == {
        NAME: {"dns-01", "http-01"},
        WILDCARD: {"dns-01"},
        ADDRESS: {"http-01"},
    }


async def test_built_in_ca_is_called_what_the_community_tells() -> None:
    """Its account and methods are the requesters' own, which only the order knows."""
    known = issuers(FakeCa())
    assert known.is_identified("local", "default")
    issuer = await known.caa_issuer("local", "default", [NAME])
    assert issuer.identities == {"pki.corp.example"}
    assert issuer.account_uri is None
