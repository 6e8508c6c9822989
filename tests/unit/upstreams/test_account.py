"""Our account at a CA: made on demand, found again, and looked after."""

import base64
import json
from dataclasses import replace

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.problems import ProblemType
from broker.upstreams.account import EabCredential, Registration, check_account, register
from broker.upstreams.client import DIRECTORY_MAX_AGE
from tests.fakes.ca_simulator import with_header, with_members
from tests.fakes.hostile_ca.script import Fault, Resource
from tests.unit.upstreams.given import KEY_ID, Given, given

MAC_KEY = b"0123456789abcdef0123456789abcdef"
TERMS = "https://ca.example/terms/v7"


async def start() -> Given:
    """Return a CA that knows nothing of our key."""
    known = Given()
    await known.signer.create_key(KEY_ID, "ec-p256")
    return known


async def registered(known: Given, **more: object) -> UpstreamAccountRecord:
    """Register with our key."""
    members: dict[str, object] = {"upstream": "ca", "community": "default", "key_id": KEY_ID}
    registration = Registration(**members | more)  # type: ignore[arg-type]
    return await register(registration, client=known.client, clock=known.clock)


def with_terms(known: Given) -> None:
    """Let the CA have terms of service."""
    known.ca.intercept(
        Resource.DIRECTORY,
        lambda honest: with_members(honest(), {"meta": {"termsOfService": TERMS}}),
    )


def payloads(known: Given) -> list[dict[str, object]]:
    """Return what newAccount was asked for, oldest first."""
    found = []
    for request in known.ca.requests:
        if request.url.endswith("/newAccount"):
            payload = json.loads(request.body or b"")["payload"]
            found.append(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    return found


async def test_an_account_is_made_and_recorded() -> None:
    """The record has all that is needed to use the account after a restart."""
    known = await start()
    record = await registered(known, contacts=("mailto:pki@example.com",))
    assert record.account_url.startswith("https://ca.example/account/")
    assert (record.upstream, record.community, record.key_id) == ("ca", "default", KEY_ID)
    assert record.directory_url == known.ca.directory_url
    assert record.thumbprint == (await known.client.account_key(KEY_ID)).jwk.thumbprint
    assert record.registered_at == known.clock.now()
    assert payloads(known) == [
        {"onlyReturnExisting": True},
        {"contact": ["mailto:pki@example.com"]},
    ]


async def test_registering_again_finds_the_same_account() -> None:
    """One stable account: a lost record costs nothing."""
    known = await start()
    assert await registered(known) == await registered(known)
    assert len(known.ca.ledger.accounts) == 1


async def test_a_lost_answer_leaves_one_account() -> None:
    """The account that was made behind a broken connection is found."""
    known = await start()
    known.ca.script.faults.append(Fault.lost(Resource.NEW_ACCOUNT, skip=1))
    with pytest.raises(Unreachable):
        await registered(known)
    await registered(known)
    assert len(known.ca.ledger.accounts) == 1


async def test_terms_are_agreed_to_by_a_person_only() -> None:
    """Without agreement nothing is made, and the refusal tells where the terms are."""
    known = await start()
    with_terms(known)
    with pytest.raises(Refused, match=TERMS) as caught:
        await registered(known)
    assert caught.value.problem.type is ProblemType.USER_ACTION_REQUIRED
    assert caught.value.problem.instance == TERMS
    assert known.ca.ledger.accounts == []
    await registered(known, is_terms_agreed=True)
    assert payloads(known)[-1] == {"termsOfServiceAgreed": True}


async def test_an_existing_account_needs_no_new_agreement() -> None:
    """Finding an account again agrees to nothing."""
    known = await start()
    await registered(known)
    known.clock.advance(DIRECTORY_MAX_AGE)
    with_terms(known)
    await registered(known)
    assert len(known.ca.ledger.accounts) == 1


async def test_a_binding_is_made_for_this_key_and_url() -> None:
    """The CA checks key, URL and MAC, and takes it."""
    known = await start()
    known.ca.script.external_accounts["kid-1"] = base64.urlsafe_b64encode(MAC_KEY).decode("ascii")[
        :-1
    ]
    with pytest.raises(Refused) as caught:
        await registered(known)
    assert caught.value.problem.type is ProblemType.EXTERNAL_ACCOUNT_REQUIRED
    await registered(known, eab=EabCredential(key_id="kid-1", mac_key=MAC_KEY))
    assert len(known.ca.ledger.accounts) == 1


async def test_a_wrong_binding_is_refused_by_the_ca() -> None:
    """Another MAC key does not hold."""
    known = await start()
    known.ca.script.external_accounts["kid-1"] = base64.urlsafe_b64encode(MAC_KEY).decode("ascii")[
        :-1
    ]
    with pytest.raises(Refused, match="does not hold"):
        await registered(known, eab=EabCredential(key_id="kid-1", mac_key=b"x" * 32))


@pytest.mark.parametrize(
    "eab",
    [
        pytest.param(EabCredential(key_id="k", mac_key=b""), id="empty"),
        pytest.param(EabCredential(key_id="k", mac_key=b"x", algorithm="none"), id="algorithm"),
    ],
)
async def test_an_unusable_binding_key_is_told(eab: EabCredential) -> None:
    """A fault of the configuration is no exception of a library's."""
    known = await start()
    with pytest.raises(Broken, match="external account binding key 'k'"):
        await registered(known, eab=eab)


async def test_a_ca_that_wants_a_binding_first_is_understood() -> None:
    """Some look for the binding before they look for the account."""
    known = await start()
    known.ca.script.faults.append(
        Fault.refusal(Resource.NEW_ACCOUNT, 403, "externalAccountRequired")
    )
    await registered(known, eab=EabCredential(key_id="k", mac_key=MAC_KEY))
    assert len(known.ca.ledger.accounts) == 1


async def test_an_account_without_url_is_broken() -> None:
    """The account URL is permanent, and cannot be guessed."""
    known = await start()
    known.ca.intercept(
        Resource.NEW_ACCOUNT, lambda honest: with_header(honest(), "Location", None), times=2
    )
    with pytest.raises(Broken, match="Location"):
        await registered(known)


async def test_a_closed_account_is_not_registered_again() -> None:
    """The sentence says what helps: another key."""
    known = await start()
    await registered(known)
    known.ca.change(Resource.ACCOUNT, {"status": "deactivated"})
    with pytest.raises(Broken, match="deactivated; a new one needs a new key"):
        await registered(known)


async def test_a_refused_contact_is_a_refusal() -> None:
    """What the CA says about our contact is passed on."""
    known = await start()
    known.ca.script.faults.append(
        Fault.refusal(Resource.NEW_ACCOUNT, 400, "invalidContact", skip=1)
    )
    with pytest.raises(Refused) as caught:
        await registered(known, contacts=("mailto:x@corp.internal",))
    assert caught.value.problem.type is ProblemType.INVALID_CONTACT


async def test_a_good_account_has_no_findings() -> None:
    """The check passes where everything is in order."""
    known = await given()
    assert list(await check_account(known.accounts.record, client=known.client)) == []


async def test_each_fault_of_an_account_is_a_finding() -> None:
    """Nothing registered, another directory, another key, a closed account, a CA that is down."""
    known = await given()
    record = known.accounts.record
    assert record is not None
    await known.signer.create_key("other", "ec-p256")

    async def finding(record: UpstreamAccountRecord | None) -> str:
        (found,) = await check_account(record, client=known.client)
        return found

    assert "no account" in await finding(None)
    assert "elsewhere" in await finding(replace(record, directory_url="https://elsewhere/dir"))
    assert "not the one" in await finding(replace(record, key_id="other"))
    assert "no key" in await finding(replace(record, key_id="nobody"))
    gone = replace(record, account_url="https://ca.example/account/gone")
    assert "accountDoesNotExist" in await finding(gone)
    known.ca.change(Resource.ACCOUNT, {"status": "revoked"})
    assert "is revoked" in await finding(record)
    known.ca.script.faults.append(Fault.lost(Resource.ACCOUNT))
    assert "connection reset" in await finding(record)
