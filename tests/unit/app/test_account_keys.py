"""Our accounts at the configured CAs: one gate for each, and no CA but the configured one."""

from dataclasses import replace

import pytest

from broker.app.account_keys import AccountGates, ConfiguredAccounts
from broker.issuance.errors import Broken
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.exchange import HttpRequest, HttpResponse
from broker.upstreams.client import AcmeClient
from tests.fakes.ca_simulator import CaSimulator
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import FakeSigner

RECORD = UpstreamAccountRecord(
    upstream="ca",
    community="default",
    directory_url="https://ca.example/directory",
    account_url="https://ca.example/acct/1",
    key_id="key",
    thumbprint="thumb",
    registered_at=START,
)


class NoTransport:
    """Carries nothing."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError(f"{request.url} was asked for")


def accounts() -> tuple[ConfiguredAccounts, AccountGates, FakeSigner]:
    """Return accounts at one CA, which is never spoken to."""
    signer, gates = FakeSigner(), AccountGates()
    client = AcmeClient(
        directory_url=RECORD.directory_url,
        transport=NoTransport(),
        signer=signer,
        clock=FakeClock(),
    )
    return ConfiguredAccounts({"ca": client}, gates, signer), gates, signer


def test_each_account_has_a_gate_of_its_own() -> None:
    """That of another community is another account."""
    made, gates, _ = accounts()
    made.set_certain("ca", "default", is_certain=False)
    assert not gates.of("ca", "default").is_certain
    assert gates.of("ca", "lab").is_certain
    made.set_certain("ca", "default", is_certain=True)
    assert gates.of("ca", "default").is_certain


def test_account_that_is_lost_is_not_usable() -> None:
    """For the reason that its gate has; another one is."""
    made, gates, _ = accounts()
    gates.of("ca", "default").loss = "the CA knows no such account"
    with pytest.raises(Broken, match="knows no such account"):
        made.verify_usable("ca", "default")
    made.verify_usable("ca", "lab")


async def test_account_is_held_by_its_gate() -> None:
    """Whoever remembered its key asks again afterwards."""
    made, gates, _ = accounts()
    async with made.held("ca", "default"):
        pass
    assert gates.of("ca", "default").changes == 1


async def test_thumbprint_is_that_of_the_key() -> None:
    """Two keys have two."""
    made, _, signer = accounts()
    await signer.create_key("one", "ec-p256")
    await signer.create_key("two", "ec-p256")
    assert await made.thumbprint("ca", "one") != await made.thumbprint("ca", "two")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        pytest.param(replace(RECORD, upstream="gone"), "is not configured", id="gone"),
        pytest.param(
            replace(RECORD, directory_url="https://old.example/d"), "is one of https://old", id="ca"
        ),
    ],
)
async def test_account_at_another_ca_is_left_alone(
    record: UpstreamAccountRecord, words: str
) -> None:
    """The configuration names another CA by now: a person has to say what is meant."""
    made, _, _ = accounts()
    with pytest.raises(Broken, match=words):
        await made.change_key(record, "new")
    with pytest.raises(Broken, match=words):
        await made.account_of(record, "new")


async def test_key_that_was_made_anew_under_its_name_is_looked_at_anew() -> None:
    """A change that was undone destroyed the first one: it is not shown to the CA again."""
    simulator, signer = CaSimulator(), FakeSigner()
    client = AcmeClient(
        directory_url="https://ca.example/directory",
        transport=simulator,
        signer=signer,
        clock=FakeClock(),
    )
    made = ConfiguredAccounts({"ca": client}, AccountGates(), signer)
    for _ in range(2):
        await signer.create_key("new", "ec-p256")
        assert await made.account_of(RECORD, "new") is None
        await signer.destroy_key("new")
