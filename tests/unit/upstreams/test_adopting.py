"""An account of another client, looked up at its CA by its key."""

import base64

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.records import UpstreamAccountRecord
from broker.upstreams.account import EabCredential, Registration, register
from broker.upstreams.adopting import look_up
from tests.fakes.ca_simulator import with_header, with_members
from tests.fakes.hostile_ca.script import Fault, Resource
from tests.unit.upstreams.given import KEY_ID, Given

MAC_KEY = b"0123456789abcdef0123456789abcdef"


async def start(*, is_known: bool = True, eab: EabCredential | None = None) -> Given:
    """Return a CA where somebody has an account by our key, or nobody."""
    known = Given()
    await known.signer.create_key(KEY_ID, "ec-p256")
    if is_known:
        wanted = Registration(upstream="x", community="x", key_id=KEY_ID, eab=eab)
        await register(wanted, client=known.client, clock=known.clock)
    return known


async def looked_up(known: Given, url: str | None = None) -> UpstreamAccountRecord:
    """Look the account up."""
    return await look_up(
        url,
        upstream="ca",
        community="default",
        key_id=KEY_ID,
        client=known.client,
        clock=known.clock,
    )


async def test_account_is_found_by_its_key() -> None:
    """The record has all that is needed; naming the URL changes nothing."""
    known = await start()
    found = await looked_up(known)
    assert found.account_url.startswith("https://ca.example/account/")
    assert (found.upstream, found.community, found.key_id) == ("ca", "default", KEY_ID)
    assert found.thumbprint == (await known.client.account_key(KEY_ID)).jwk.thumbprint
    assert await looked_up(known, found.account_url) == found
    assert len(known.ca.ledger.accounts) == 1


async def test_account_that_nobody_has_is_not_made() -> None:
    """The question is one, and no wish."""
    known = await start(is_known=False)
    with pytest.raises(Broken, match="knows no account by this key; is it one of another CA"):
        await looked_up(known)
    assert known.ca.ledger.accounts == []


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://ca.example/account/none", "speaks for account https.*/none was named"),
        ("https://staging.example/account/1", "leads to another origin"),
        ("http://ca.example/account/1", "is no https URL"),
        ("account 1", "is no URL"),
    ],
    ids=["another", "another-origin", "plain", "nonsense"],
)
async def test_another_url_is_refused(url: str, sentence: str) -> None:
    """What was named and what the CA says have to be one."""
    known = await start()
    with pytest.raises(Broken, match=sentence):
        await looked_up(known, url)


async def test_account_that_was_closed_is_refused() -> None:
    """It cannot be had back by anybody."""
    known = await start()
    known.ca.intercept(
        Resource.ACCOUNT, lambda honest: with_members(honest(), {"status": "deactivated"})
    )
    with pytest.raises(Broken, match="is deactivated, and stays so"):
        await looked_up(known)


async def test_ca_that_wants_a_binding_first_needs_the_url() -> None:
    """The account then shows itself under the key."""
    known = Given()
    await known.signer.create_key(KEY_ID, "ec-p256")
    mac = base64.urlsafe_b64encode(MAC_KEY).decode("ascii")[:-1]
    known.ca.script.external_accounts["kid-1"] = mac
    eab = EabCredential(key_id="kid-1", mac_key=MAC_KEY)
    wanted = Registration(upstream="x", community="x", key_id=KEY_ID, eab=eab)
    made = await register(wanted, client=known.client, clock=known.clock)
    found = await looked_up(known, made.account_url)
    assert found.account_url == made.account_url


async def test_ca_that_is_away_says_nothing() -> None:
    """It can be asked again."""
    known = await start()
    known.ca.script.faults.append(Fault.lost(Resource.NEW_ACCOUNT))
    with pytest.raises(Unreachable):
        await looked_up(known)


async def test_ca_that_names_no_url_is_broken() -> None:
    """There is nothing to keep."""
    known = await start()
    known.ca.intercept(Resource.NEW_ACCOUNT, lambda honest: with_header(honest(), "Location", None))
    with pytest.raises(Broken, match="named no account URL"):
        await looked_up(known)
