"""The desk's commands about accounts and keys from elsewhere."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.issuance.adoption import Adopted, AdoptionWish
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.key_moves import Move, Moved
from broker.keys.importing import pkcs8_of
from broker.operations import OperatorDesk
from broker.web.operator import OperationError
from tests.unit.issuance.test_adoption import record
from tests.unit.keys.weak_keys import close_primes
from tests.unit.operations.conftest import ANNA, Office
from tests.unit.protocol.builders import Authority

KEY = ec.generate_private_key(ec.SECP256R1())
TEXT = base64.b64encode(pkcs8_of(KEY)).decode()


class FakeAdoption:
    """Remembers what was to be adopted."""

    def __init__(self) -> None:
        self.wishes: list[AdoptionWish] = []
        self.certificates: list[tuple[str, str, int]] = []
        self.revoked: list[tuple[str, int]] = []

    async def adopt(self, wish: AdoptionWish, *, actor: Any) -> Adopted:
        self.wishes.append(wish)
        return Adopted(account=record("key"), is_same_key=wish.fate.is_kept, gave_way=None)

    async def adopt_certificates(
        self, upstream: str, community: str, found: Any, *, actor: Any
    ) -> list[Any]:
        self.certificates.append((upstream, community, len(found)))
        return []

    async def revoke(
        self, upstream: str, community: str, certificate: Any, *, reason: int, actor: Any
    ) -> Any:
        self.revoked.append((certificate.serial, reason))
        return record("key")


class FakeMoves:
    """Remembers what was to be moved."""

    def __init__(self) -> None:
        self.moves: list[Move] = []
        self.failures: dict[str, Exception] = {}

    async def move(self, wish: Move, *, actor: Any) -> Moved:
        if wish.community in self.failures:
            raise self.failures[wish.community]
        self.moves.append(wish)
        return Moved(
            account=record("vault:transit/a#1"),
            old_key_id="old",
            old_key_destroyed=wish.destroys_old,
            is_same_key=wish.imports_existing,
        )


class Takeover:
    """The desk with both."""

    def __init__(self, office: Office) -> None:
        self.adoption, self.moves = FakeAdoption(), FakeMoves()
        assert isinstance(office.desk, OperatorDesk)
        rooms = replace(
            office.desk._rooms,
            adoption=self.adoption,  # type: ignore[arg-type]
            key_moves=self.moves,  # type: ignore[arg-type]
        )
        self.desk = OperatorDesk(rooms)
        self.store = office.world.store

    async def have(self, community: str, *, key_id: str) -> None:
        """Have an account there with this key."""
        account = replace(record(key_id), community=community)
        event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=account.registered_at)
        await self.store.save_upstream_account(account, event)

    async def adopt(self, **given: Any) -> Any:
        """Adopt an account for the default community."""
        usual = {"upstream": "ca", "private_key": TEXT, "came_from": "x", "community": "default"}
        return await self.desk.upstream_adopt(actor=ANNA, **{**usual, **given})


@pytest.fixture
async def takeover(office: Office) -> Takeover:
    """A desk that only remembers."""
    return Takeover(office)


async def test_adoption_is_asked_for_as_said(takeover: Takeover) -> None:
    """The key as it is, and where it came from cut to what an event holds."""
    made = await takeover.adopt(came_from="x" * 600, account_url="https://ca.example/acct/1")
    (wish,) = takeover.adoption.wishes
    assert wish.pkcs8_der == pkcs8_of(KEY)
    assert (wish.community, len(wish.came_from)) == ("default", 500)
    assert (wish.fate.is_kept, wish.fate.is_imported, wish.replaces) == (False, False, False)
    assert wish.account_url == "https://ca.example/acct/1"
    assert (made["key"], made["same_key"], made["gave_way"]) == ("key", False, None)
    assert TEXT[:40] not in repr(wish)


async def test_imported_key_is_a_kept_one(takeover: Takeover) -> None:
    """There is no new key for it."""
    await takeover.adopt(import_existing=True)
    (wish,) = takeover.adoption.wishes
    assert (wish.fate.is_kept, wish.fate.is_imported) == (True, True)


def weak_key() -> rsa.RSAPrivateKey:
    """Return a key whose primes lie so close that Fermat finds them."""
    n = close_primes()
    middle = math.isqrt(n) + 1
    while math.isqrt(middle * middle - n) ** 2 != middle * middle - n:
        middle += 1
    apart = math.isqrt(middle * middle - n)
    p, q, e = middle + apart, middle - apart, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, n)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key()


WEAK = weak_key()


def text(key: Any) -> str:
    """Return a key as it is handed over."""
    return base64.b64encode(pkcs8_of(key)).decode()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"private_key": "%%"}, "is no base64"),
        ({"private_key": base64.b64encode(b"secret").decode()}, "no private key in plain PKCS#8"),
        ({"private_key": text(ec.generate_private_key(ec.SECP521R1()))}, "on secp521r1"),
        ({"upstream": "local"}, "no CA with accounts is called 'local'"),
        ({"community": "other"}, "serves default, lab, not 'other'"),
        ({"community": None}, "serves several communities"),
        (
            {"private_key": text(rsa.generate_private_key(65537, 2048)), "import_existing": True},
            "of kind rsa-2048, and the configuration says ec-p256",
        ),
        ({"private_key": text(WEAK), "keep_key": True}, "must not be kept: RSA key has"),
    ],
    ids=["base64", "pkcs8", "curve", "built-in", "stranger", "unsaid", "kind", "weak"],
)
async def test_what_cannot_be_adopted_is_refused(
    takeover: Takeover, given: dict[str, Any], sentence: str
) -> None:
    """Before anything is asked of anybody."""
    with pytest.raises(OperationError, match=sentence):
        await takeover.adopt(**given)
    assert takeover.adoption.wishes == []


async def test_weak_key_is_adopted_to_be_rid_of_it(takeover: Takeover) -> None:
    """The twin of the refusal: it gets a new key at once."""
    await takeover.adopt(private_key=text(WEAK))
    assert len(takeover.adoption.wishes) == 1


async def test_certificates_are_read_one_by_one(takeover: Takeover) -> None:
    """And nonsense among them is refused."""
    pem = leaf()
    given: dict[str, Any] = {"upstream": "ca", "community": "lab", "actor": ANNA}
    await takeover.desk.upstream_adopt_certificates(certificates=[pem, pem], **given)
    assert takeover.adoption.certificates == [("ca", "lab", 2)]
    with pytest.raises(OperationError, match="cannot be read"):
        await takeover.desk.upstream_adopt_certificates(certificates=["x"], **given)


def leaf() -> str:
    """Return a certificate in PEM."""
    return Authority.root().pem.decode()


async def test_revocation_has_a_reason_that_is_offered(takeover: Takeover) -> None:
    """Those that speak of a CA are not."""
    given: dict[str, Any] = {"upstream": "ca", "community": "lab", "actor": ANNA}
    given["certificate"] = leaf()
    await takeover.desk.upstream_revoke(code=4, **given)
    assert [code for _, code in takeover.adoption.revoked] == [4]
    with pytest.raises(OperationError, match="reason 2 is not offered"):
        await takeover.desk.upstream_revoke(code=2, **given)


async def test_key_moves_for_each_community_with_an_account(takeover: Takeover) -> None:
    """Or for the one that is named."""
    await takeover.desk.upstream_register(actor=ANNA, upstream="ca")
    rows = await takeover.desk.upstream_move_key(
        actor=ANNA, upstream="ca", to="vault:transit", import_existing=True
    )
    assert [one.community for one in takeover.moves.moves] == ["default", "lab"]
    assert {one.to for one in takeover.moves.moves} == {"vault:transit"}
    assert [row["same_key"] for row in rows] == [True, True]
    await takeover.desk.upstream_move_key(
        actor=ANNA, upstream="ca", to="file", community="lab", destroy_old=True
    )
    assert takeover.moves.moves[-1].destroys_old


@pytest.mark.parametrize("to", ["vault", "vault:", "vault:/a", "vault:a/", "Files", "vault:a b"])
async def test_place_is_a_file_or_a_mount(takeover: Takeover, to: str) -> None:
    """As configuration writes it."""
    with pytest.raises(OperationError, match="is no place of keys"):
        await takeover.desk.upstream_move_key(actor=ANNA, upstream="ca", to=to)


async def test_desk_without_them_says_so(office: Office, tmp_path: Path) -> None:
    """As a desk is tried elsewhere."""
    with pytest.raises(OperationError, match="adopts no accounts"):
        await office.desk.upstream_adopt(
            actor=ANNA, upstream="ca", private_key=TEXT, came_from="x", community="lab"
        )
    await office.desk.upstream_register(actor=ANNA, upstream="ca")
    with pytest.raises(OperationError, match="moves no keys"):
        await office.desk.upstream_move_key(actor=ANNA, upstream="ca", to="file")


async def test_move_goes_on_with_the_communities_that_are_left(takeover: Takeover) -> None:
    """Asked again after it was cut off between two of them; one that is named is refused."""
    there = Broken("the key is in vault:transit already")
    await takeover.desk.upstream_register(actor=ANNA, upstream="ca")
    await takeover.have("default", key_id="vault:transit/penstock.default.ca#1")
    takeover.moves.failures["default"] = there
    rows = await takeover.desk.upstream_move_key(actor=ANNA, upstream="ca", to="vault:transit")
    assert len(rows) == 1
    assert [one.community for one in takeover.moves.moves] == ["lab"]
    with pytest.raises(Broken, match="already"):
        await takeover.desk.upstream_move_key(
            actor=ANNA, upstream="ca", to="vault:transit", community="default"
        )
    await takeover.have("lab", key_id="vault:transit/penstock.lab.ca#1")
    takeover.moves.failures["lab"] = there
    with pytest.raises(Broken, match="already"):
        await takeover.desk.upstream_move_key(actor=ANNA, upstream="ca", to="vault:transit")


async def test_move_that_fails_after_others_tells_which_were_moved(takeover: Takeover) -> None:
    """With how to go on."""
    await takeover.desk.upstream_register(actor=ANNA, upstream="ca")
    takeover.moves.failures["lab"] = Unreachable("Vault is sealed")
    with pytest.raises(OperationError, match=r"community 'lab' .* Vault is sealed") as told:
        await takeover.desk.upstream_move_key(actor=ANNA, upstream="ca", to="vault:transit")
    assert "default" in (told.value.hint or "")
