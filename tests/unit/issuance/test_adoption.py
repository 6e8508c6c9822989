"""An account of another client becomes ours: whole, refused, undone, and cut off at every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker.issuance.adoption import Adoption, AdoptionWish, KeyFate
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_moves import KeyMoves
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_keys import UpstreamKeys
from broker.keys.importing import parse_pkcs8, pkcs8_of
from broker.keys.rings import KeyRings
from broker.protocol.parsed_certificate import ParsedCertificate, parse_certificate
from broker.protocol.problems import Problem, ProblemType
from broker.storage.sqlite import SqliteStore
from tests.fakes.account_at_ca import FakeAccountsAtCas
from tests.fakes.clock import START, FakeClock
from tests.fakes.interruptions import Cut, Cutting, Traffic
from tests.fakes.transit_ring import FakeTransitRing, Versions, split

ACTOR = Actor("operator:anna", "ticket 7")
URL = "https://ca.example/acct/1"
FORMER = "https://ca.example/acct/0"
VERSION = "vault:transit/penstock.default.ca#1"
KEY = ec.generate_private_key(ec.SECP256R1())
NO_CHANGE = Problem(ProblemType.SERVER_INTERNAL, "keyChange is not implemented")


class FakeForeign:
    """Implements ``adoption_ports.ForeignKeys`` over the keys of a test."""

    def __init__(self, transit: FakeTransitRing, place: str) -> None:
        self._transit = transit
        self.configured = place
        self.brought: list[str] = []

    def place(self, upstream: str, community: str) -> str:
        return self.configured

    async def take_in(self, key_id: str, pkcs8_der: bytes) -> None:
        key = parse_pkcs8(pkcs8_der)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._transit.signer.keys[key_id] = key

    async def taken_in(self) -> Sequence[str]:
        return [key for key in self._transit.signer.keys if key.startswith("adopted-")]

    async def destination(self, key_id: str, upstream: str, community: str) -> str:
        if self._transit.is_sealed:
            raise Unreachable("Vault is sealed")
        return VERSION

    async def bring(self, key_id: str, new_key_id: str) -> None:
        if self._transit.is_sealed:
            raise Unreachable("Vault is sealed")
        self.brought.append(new_key_id)
        self._transit.made[split(new_key_id)[0]] = Versions("ec-p256", 1)
        self._transit.signer.keys[new_key_id] = self._transit.signer.keys[key_id]


class FakeElsewhere:
    """Implements ``adoption_ports.AccountsElsewhere`` for the one account of a test."""

    def __init__(self, ca: FakeAccountsAtCas) -> None:
        self._ca = ca
        self.welcomed: list[tuple[str, str]] = []
        self.is_closed = False

    async def look_up(
        self, upstream: str, community: str, key_id: str, account_url: str | None
    ) -> UpstreamAccountRecord:
        if self._ca.is_away:
            raise Unreachable("the CA is away")
        if self.is_closed or key_id != self._ca.key_id:
            raise Broken("the CA knows no account by this key")
        return record(key_id)

    def welcome(self, upstream: str, community: str) -> None:
        self.welcomed.append((upstream, community))


def record(key_id: str, url: str = URL) -> UpstreamAccountRecord:
    """Return an account of ours."""
    return UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url="https://ca.example/directory",
        account_url=url,
        key_id=key_id,
        thumbprint=f"thumbprint of {key_id}",
        registered_at=START,
    )


def wish(**given: Any) -> AdoptionWish:
    """Return what is asked for unless a test says otherwise."""
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    usual: dict[str, Any] = {
        "upstream": "ca",
        "community": "default",
        "pkcs8_der": pkcs8_of(KEY),
        "spki_der": spki,
        "account_url": URL,
        "came_from": "certbot: /etc/letsencrypt",
        "fate": KeyFate(kind="ec-p256"),
    }
    return AdoptionWish(**{**usual, **given})


KEPT = wish(fate=KeyFate(kind="ec-p256", is_kept=True))
IMPORTED = wish(fate=KeyFate(kind="ec-p256", is_kept=True, is_imported=True))


class FakeUpstreams:
    """Remembers what was to be revoked."""

    def __init__(self) -> None:
        self.revoked: list[tuple[bytes, int]] = []

    def get(self, upstream: str, community: str) -> Any:
        return self

    def facts(self, community: str) -> Any:
        return []

    def waiting(self, upstream: str, community: str) -> Any:
        return None

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        self.revoked.append((certificate_der, reason))


class Office:
    """A CA with an account of somebody else, and the processes that adopt it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.transit = FakeTransitRing(uses=store)
        self.ring = KeyRings(self.transit.signer, self.transit)  # type: ignore[arg-type]
        self.ca = FakeAccountsAtCas(self.ring, URL, wish().key_id)
        self.foreign = FakeForeign(self.transit, "vault:transit")
        self.elsewhere = FakeElsewhere(self.ca)
        self.upstreams = FakeUpstreams()
        self.traffic = Traffic()
        self.clock = FakeClock()
        self.start()

    def start(self) -> None:
        """Begin a process."""
        store = self.traffic.watch(self.store, "store", counts=True)
        ring = self.traffic.watch(self.ring, "ring", counts=True)
        places = self.traffic.watch(self.transit, "places", counts=True)
        foreign = self.traffic.watch(self.foreign, "foreign", counts=True)
        self.keys = UpstreamKeys(
            store,
            store,
            ring=ring,
            places=places,
            accounts=self.traffic.watch(self.ca, "ca", counts=True),
            clock=self.clock,
        )
        self.moves = KeyMoves(store, ring=ring, keys=self.keys, foreign=foreign, clock=self.clock)
        self.adoption = Adoption(
            store,
            ring=ring,
            places=places,
            keys=self.keys,
            moves=self.moves,
            foreign=foreign,
            elsewhere=self.traffic.watch(self.elsewhere, "elsewhere", counts=True),
            upstreams=self.upstreams,
            clock=self.clock,
        )

    async def have(self, account: UpstreamAccountRecord) -> None:
        """Have an account of ours there."""
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START)
        await self.store.save_upstream_account(account, event)

    async def found(self) -> UpstreamAccountRecord | None:
        """Return our account."""
        return await self.store.find_upstream_account("ca", "default")

    async def kinds(self) -> list[EventKind]:
        """Return what happened, oldest first."""
        events = await self.store.read_events(after=0, limit=100, order_id=None)
        return [event.kind for _, event in events]

    def files(self) -> list[str]:
        """Return the keys that lie in files."""
        return [key for key in self.transit.signer.keys if not key.startswith("vault:")]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """A store without an account."""
    store = await SqliteStore.open(tmp_path / "store.db")
    yield Office(store)
    await store.close()


async def test_account_is_ours_by_a_new_key(office: Office) -> None:
    """Made in Vault; of the old one nothing is left here, and the event says whence it came."""
    made = await office.adoption.adopt(wish(), actor=ACTOR)
    assert made.account == await office.found()
    assert (made.account.account_url, made.account.key_id) == (URL, VERSION)
    assert (made.is_same_key, made.gave_way) == (False, None)
    assert office.ca.key_id == VERSION
    assert office.files() == []
    assert office.elsewhere.welcomed == [("ca", "default")]
    assert await office.kinds() == [
        EventKind.UPSTREAM_ACCOUNT_ADOPTED,
        EventKind.UPSTREAM_KEY_CHANGE_BEGUN,
        EventKind.UPSTREAM_KEY_CHANGED,
        EventKind.UPSTREAM_KEY_DESTROYED,
    ]
    ((_, adopted), *_) = await office.store.read_events(after=0, limit=1, order_id=None)
    assert adopted.actor == ACTOR
    assert adopted.data["came_from"] == "certbot: /etc/letsencrypt"


async def test_key_that_is_kept_lies_in_a_file(office: Office) -> None:
    """Nothing is asked of the CA but whose key it is."""
    office.foreign.configured = "file"
    made = await office.adoption.adopt(KEPT, actor=ACTOR)
    assert made.account.key_id == wish().key_id == office.ca.key_id
    assert made.is_same_key
    assert office.files() == [wish().key_id]
    assert office.ca.changes == 0


async def test_key_that_is_imported_is_in_vault_alone(office: Office) -> None:
    """The CA knows it as before, and its file is gone."""
    office.ca.thumbprints = {VERSION: f"thumbprint of {wish().key_id}"}
    importing = asyncio.ensure_future(office.adoption.adopt(IMPORTED, actor=ACTOR))
    office.foreign.bring = bring_for(office)  # type: ignore[method-assign]
    made = await importing
    assert made.account.key_id == VERSION
    assert made.is_same_key
    assert office.files() == []
    assert EventKind.UPSTREAM_KEY_IMPORTED in await office.kinds()


def bring_for(office: Office) -> Any:
    """Return a way into Vault after which the CA, asked by the version, knows the account."""
    bring = FakeForeign.bring

    async def brought(key_id: str, new_key_id: str) -> None:
        await bring(office.foreign, key_id, new_key_id)
        office.ca.others[new_key_id] = URL

    return brought


@pytest.mark.parametrize(
    ("place", "given", "sentence"),
    [
        ("vault:transit", KEPT, "has to be imported there"),
        ("file", IMPORTED, "nothing to import into"),
    ],
    ids=["kept-in-vault", "imported-into-files"],
)
async def test_key_comes_only_to_where_keys_are_kept(
    office: Office, place: str, given: AdoptionWish, sentence: str
) -> None:
    """The configuration says where; nothing is done against it."""
    office.foreign.configured = place
    with pytest.raises(Broken, match=sentence):
        await office.adoption.adopt(given, actor=ACTOR)
    assert (await office.found(), office.files(), await office.kinds()) == (None, [], [])


async def test_nothing_is_begun_where_no_key_can_be_made(office: Office) -> None:
    """Vault has no identity for it: found before the account is looked at."""
    office.transit.may_rotate = False
    with pytest.raises(Broken, match="no identity that makes keys"):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert (await office.found(), office.files()) == (None, [])


@pytest.mark.parametrize("fault", ["unknown", "away"])
async def test_account_that_is_not_found_leaves_nothing(office: Office, fault: str) -> None:
    """The key that was taken in goes again."""
    office.elsewhere.is_closed, office.ca.is_away = fault == "unknown", fault == "away"
    with pytest.raises((Broken, Unreachable)):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert (await office.found(), office.files(), await office.kinds()) == (None, [], [])


async def test_refused_change_undoes_the_adoption(office: Office) -> None:
    """Whoever had the account has it, by the same key; the CA's words come back."""
    office.ca.refusal = NO_CHANGE
    with pytest.raises(Refused, match="not implemented"):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert await office.found() is None
    assert office.ca.key_id == wish().key_id
    assert office.files() == []
    assert office.elsewhere.welcomed == []
    assert (await office.kinds())[-1] is EventKind.UPSTREAM_ADOPTION_UNDONE


async def test_failed_import_undoes_the_adoption(office: Office) -> None:
    """Vault did not take it."""
    office.transit.is_sealed = True
    with pytest.raises(Unreachable, match="sealed"):
        await office.adoption.adopt(IMPORTED, actor=ACTOR)
    assert await office.found() is None
    assert office.files() == []


async def test_change_in_doubt_is_not_undone(office: Office) -> None:
    """The CA made the change and went away: the account is ours, and the change ends by itself."""
    change = office.ca.change_key

    async def vanish(account: UpstreamAccountRecord, new_key_id: str) -> None:
        await change(account, new_key_id)
        office.ca.is_away = True
        raise Unreachable("the answer was lost")

    office.ca.change_key = vanish  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await office.adoption.adopt(wish(), actor=ACTOR)
    found = await office.found()
    assert found is not None
    assert found.key_id == wish().key_id
    office.ca.is_away = False
    await office.keys.settle()
    await office.moves.tidy()
    found = await office.found()
    assert found is not None
    assert found.key_id == VERSION
    assert office.files() == []


async def test_account_that_is_there_gives_way_only_when_told_to(office: Office) -> None:
    """And never the same account to itself."""
    await office.have(record("account-ca@default", FORMER))
    with pytest.raises(Broken, match=r"has account .*acct/0 .* say --replace"):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert office.files() == []
    made = await office.adoption.adopt(wish(replaces=True), actor=ACTOR)
    assert made.gave_way is not None
    assert (made.gave_way.account_url, made.account.account_url) == (FORMER, URL)


async def test_account_that_is_ours_already_is_said_to_be(office: Office) -> None:
    """By another key of ours, such as in a copy of a store."""
    await office.have(record("account-ca@default"))
    with pytest.raises(Broken, match="is ours already, by the key 'account-ca@default'"):
        await office.adoption.adopt(wish(replaces=True), actor=ACTOR)


async def test_replaced_account_does_not_come_back(office: Office) -> None:
    """Orders may rest on the new one: it stays, and the sentence says how to go on."""
    await office.have(record("account-ca@default", FORMER))
    office.ca.refusal = NO_CHANGE
    with pytest.raises(Broken, match=r"ours by the key that it had, .*rotate-key ca"):
        await office.adoption.adopt(wish(replaces=True), actor=ACTOR)
    found = await office.found()
    assert found is not None
    assert (found.account_url, found.key_id) == (URL, wish().key_id)
    assert office.files() == [wish().key_id]


async def test_kept_key_is_not_undone_by_a_later_attempt(office: Office) -> None:
    """What was adopted with its key on purpose stays ours when the change is refused."""
    office.foreign.configured = "file"
    await office.adoption.adopt(KEPT, actor=ACTOR)
    office.ca.refusal = NO_CHANGE
    with pytest.raises(Broken, match="could not be changed"):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert await office.found() is not None
    office.ca.refusal = None
    made = await office.adoption.adopt(wish(), actor=ACTOR)
    assert made.account.key_id == VERSION


STEPS = (
    "store.find_upstream_account",
    "places.next_account_key_id",
    "foreign.take_in",
    "elsewhere.look_up",
    "store.save_upstream_account",
    "store.begin_upstream_key_change",
    "ring.create_key",
    "ca.change_key",
    "ca.account_of",
    "store.end_upstream_key_change",
    "ring.destroy_key",
    "store.append",
)
"""The steps of an adoption that change something, or whose loss could."""


async def test_steps_are_among_these(office: Office) -> None:
    """The list that the next test walks leaves out questions alone."""
    await office.adoption.adopt(wish(), actor=ACTOR)
    taken = list(dict.fromkeys(office.traffic.steps))
    assert [step for step in taken if step in STEPS] == list(STEPS)
    questions = {"store.list_upstream_accounts", "ring.has_key", "ca.thumbprint"}
    assert set(taken) - set(STEPS) <= questions


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("step", STEPS)
async def test_adoption_that_is_cut_off_goes_on_when_asked_again(
    office: Office, step: str, side: Cut
) -> None:
    """In between the account is whole: either the other client's, or ours by a key that is here."""
    office.traffic.cutting = Cutting(step, 1, side)
    dying = asyncio.ensure_future(office.adoption.adopt(wish(), actor=ACTOR))
    await office.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    office.traffic.revive()
    office.ca.is_certain = True
    office.start()
    await office.keys.load()
    await office.moves.drop_strays()
    await office.keys.settle()
    await office.moves.tidy()
    found = await office.found()
    if found is None:
        assert office.ca.key_id == wish().key_id, "certbot has it as before"
        assert office.files() == [], "and we have nothing of it"
    else:
        assert found.key_id == office.ca.key_id
        assert await office.ring.has_key(found.key_id)
    if found is None or found.key_id == wish().key_id:
        await office.adoption.adopt(wish(), actor=ACTOR)
    found = await office.found()
    assert found is not None
    assert found.key_id == office.ca.key_id
    assert found.key_id.startswith("vault:")
    assert office.files() == []


async def test_key_of_an_undone_adoption_goes_at_the_next_start(office: Office) -> None:
    """Cut off after the account was forgotten, before its key was."""
    office.ca.refusal = NO_CHANGE
    office.traffic.cutting = Cutting("store.undo_adoption", 1, Cut.AFTER)
    dying = asyncio.ensure_future(office.adoption.adopt(wish(), actor=ACTOR))
    await office.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    office.traffic.revive()
    office.start()
    assert office.files() == [wish().key_id]
    await office.moves.drop_strays()
    assert office.files() == []


def leaf(name: str, *, days: int = 30, named: bool = True) -> ParsedCertificate:
    """Return a certificate, with an authority key identifier or without."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START - timedelta(days=60))
        .not_valid_after(START + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    if named:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key())
        builder = builder.add_extension(identifier, critical=False)
    made = builder.sign(KEY, hashes.SHA256())
    return parse_certificate(made.public_bytes(Encoding.DER))


async def test_certificates_that_came_along_are_remembered(office: Office) -> None:
    """Those that are in force and have a CertID, for the account as it is now."""
    await office.have(record(VERSION))
    given = [leaf("www.example"), leaf("past.example", days=-1), leaf("own.example", named=False)]
    kept = await office.adoption.adopt_certificates("ca", "default", given, actor=ACTOR)
    (one,) = kept
    found = await office.store.adopted_certificates("default", one.cert_id)
    assert list(found) == [one]
    assert (one.account_url, [str(name) for name in one.identifiers]) == (URL, ["www.example"])
    assert await office.store.adopted_certificates("lab", one.cert_id) == []


async def test_certificate_without_an_account_is_refused(office: Office) -> None:
    """Nobody could have ordered it."""
    with pytest.raises(Broken, match="has no account"):
        await office.adoption.adopt_certificates("ca", "default", [], actor=ACTOR)


async def test_undoing_meets_only_what_was_adopted(office: Office) -> None:
    """An account that has another key by now is not forgotten."""
    await office.have(record(VERSION))
    event = Event(kind=EventKind.UPSTREAM_ADOPTION_UNDONE, at=START)
    stale = replace(record(VERSION), key_id="adopted-ca@default.0")
    with pytest.raises(Conflict, match="is not ours by adopted-ca"):
        await office.store.undo_adoption(stale, event)
    assert await office.found() is not None


@pytest.mark.parametrize(
    "other",
    [{"community": "lab"}, {"upstream": "ca-again"}],
    ids=["of another community", "by another name of the CA"],
)
async def test_account_is_adopted_once(office: Office, other: dict[str, Any]) -> None:
    """Were it two of ours, a rotation of the one would take the key away from the other."""
    theirs = record(wish().key_id)
    await office.have(replace(theirs, **other))
    with pytest.raises(Broken, match=f"is ours already, .*{next(iter(other.values()))}"):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert await office.found() is None
    assert office.files() == []


async def test_refused_change_is_undone_whatever_another_community_waits_for(
    office: Office,
) -> None:
    """A change in doubt is one account's affair."""
    theirs = replace(record("account-ca@lab", FORMER), community="lab")
    await office.have(theirs)
    office.transit.signer.keys["account-ca@lab"] = KEY
    office.ca.refusal = NO_CHANGE
    account_of = office.ca.account_of
    office.ca.account_of = away  # type: ignore[method-assign, assignment]
    with pytest.raises(Unreachable):
        await office.keys.change("ca", "lab", kind="ec-p256", actor=ACTOR)
    office.ca.account_of = account_of  # type: ignore[method-assign]
    with pytest.raises(Refused):
        await office.adoption.adopt(wish(), actor=ACTOR)
    assert await office.found() is None


async def away(*_: Any) -> str | None:
    """Answer as a CA that is away."""
    raise Unreachable("the CA is away")


async def test_account_that_gives_way_is_used_by_nobody_meanwhile(office: Office) -> None:
    """An order that is on its way would go on with another account than it began with."""
    await office.have(record("account-ca@default", FORMER))
    office.foreign.configured = "file"
    held, seen = [False], []
    save = office.store.save_upstream_account

    @asynccontextmanager
    async def hold(upstream: str, community: str) -> AsyncIterator[None]:
        held[0] = True
        yield
        held[0] = False

    async def look(*given: Any) -> None:
        seen.append(held[0])
        await save(*given)

    office.ca.held = hold  # type: ignore[method-assign]
    office.store.save_upstream_account = look  # type: ignore[method-assign, assignment]
    await office.adoption.adopt(replace(KEPT, replaces=True), actor=ACTOR)
    assert seen == [True]


async def test_account_that_is_ours_already_leaves_no_key_behind(office: Office) -> None:
    """What was read of it is gone again."""
    await office.have(record("account-ca@default"))
    with pytest.raises(Broken, match="is ours already"):
        await office.adoption.adopt(wish(replaces=True), actor=ACTOR)
    assert office.files() == []
