"""What a CA says of an account of ours, told apart although it uses one word for several things."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.issuance.account_ports import Standing
from broker.issuance.errors import Refused, Unreachable
from broker.issuance.records import UpstreamAccountRecord
from broker.upstreams.standing import ask_standing
from tests.fakes.hostile_ca.script import Fault, Resource
from tests.unit.upstreams.given import KEY_ID, Given, given


def record_of(known: Given) -> UpstreamAccountRecord:
    """Return our account."""
    assert known.accounts.record is not None
    return known.accounts.record


async def test_account_that_is_valid() -> None:
    """One question is enough."""
    known = await given()
    before = len(known.ca.requests)
    assert await ask_standing(known.client, record_of(known), KEY_ID) is Standing.VALID
    assert len(known.ca.requests) == before + 1


async def test_account_that_was_deactivated() -> None:
    """Whether the CA shows it or refuses to."""
    known = await given()
    for account in known.ca.resources.records.accounts.values():
        account.status = "deactivated"
    assert await ask_standing(known.client, record_of(known), KEY_ID) is Standing.CLOSED


@pytest.mark.parametrize("word", ["unauthorized", "malformed", "badPublicKey"])
async def test_key_that_is_not_the_accounts(word: str) -> None:
    """CAs have three words for a signature that does not verify; the key alone is unknown."""
    known = await given()
    await known.signer.create_key("other", "ec-p256")
    known.ca.script.faults.append(Fault.refusal(Resource.ACCOUNT, 403, word))
    assert await ask_standing(known.client, record_of(known), "other") is Standing.KEY_UNKNOWN


async def test_account_that_the_ca_has_forgotten() -> None:
    """Neither the account nor its key is known."""
    known = await given()
    known.ca.resources.records.accounts.clear()
    standing = await ask_standing(known.client, record_of(known), KEY_ID)
    assert standing is Standing.ACCOUNT_UNKNOWN


async def test_key_of_another_account_speaks_for_that_one_alone() -> None:
    """It was made for a new account that nobody has kept yet: the old one is not its own."""
    known = await given()
    elsewhere = replace(record_of(known), account_url=f"{known.ca.base_url}/account/99")
    assert await ask_standing(known.client, elsewhere, KEY_ID) is not Standing.VALID


async def test_contradiction_is_no_loss() -> None:
    """The account is refused once and shown the next time: the refusal is told as it is."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.ACCOUNT, 403, "unauthorized"))
    with pytest.raises(Refused):
        await ask_standing(known.client, record_of(known), KEY_ID)


async def test_other_refusals_are_no_loss() -> None:
    """New terms want a person, and not a new account."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.ACCOUNT, 403, "userActionRequired"))
    with pytest.raises(Refused):
        await ask_standing(known.client, record_of(known), KEY_ID)


@pytest.mark.parametrize(
    ("word", "standing"),
    [
        ("unauthorized", Standing.CLOSED),
        ("malformed", Standing.KEY_UNKNOWN),
        ("accountDoesNotExist", Standing.ACCOUNT_UNKNOWN),
    ],
)
async def test_ca_that_wants_a_binding_first(word: str, standing: Standing) -> None:
    """It does not look the key up, so that its first word has to do."""
    known = await given()
    refused = Fault.refusal(Resource.NEW_ACCOUNT, 403, "externalAccountRequired")
    known.ca.script.faults += [Fault.refusal(Resource.ACCOUNT, 403, word), refused]
    assert await ask_standing(known.client, record_of(known), KEY_ID) is standing


async def test_ca_that_is_away_tells_nothing() -> None:
    """Nor does a keeper of keys that is."""
    known = await given()
    known.signer.is_away = True
    with pytest.raises(Unreachable):
        await ask_standing(known.client, record_of(known), KEY_ID)
