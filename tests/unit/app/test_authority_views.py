"""A built-in CA as the operator is shown it."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509

from tests.fakes.authority_keeper import ANNA, DAY, Keeper


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """The CA is made."""
    async with Keeper.open(tmp_path) as made:
        await made.initialise()
        yield made


async def test_each_issuer_is_shown_with_what_depends_on_it(keeper: Keeper) -> None:
    """Role, key, dates, certificate, and how many of its certificates are in force."""
    await keeper.issue("ca-local-issuing-1", serial=1)
    await keeper.issue("ca-local-issuing-1", serial=2, ends=DAY)
    await keeper.prepare()
    await keeper.activate()
    await keeper.prepare()
    keeper.clock.advance(2 * DAY)
    view = await keeper.authorities.show("local")
    shown = [(one["role"], one["key_id"], one["in_force"]) for one in view["issuers"]]  # type: ignore[attr-defined]
    assert shown == [
        ("past", "ca-local-issuing-1", 1),
        ("current", "ca-local-issuing-2", 0),
        ("next", "ca-local-issuing-3", 0),
    ]
    state = await keeper.kept()
    assert state.issuers is not None
    pem = view["issuers"][1]["pem"]  # type: ignore[index]
    assert x509.load_pem_x509_certificate(pem.encode()) == state.issuers.current.certificate
    shown_key = view["issuers"][1]["spki_sha256"]  # type: ignore[index]
    assert shown_key == sha256(state.issuers.current.key.spki_der).hexdigest()
    assert view["issuers"][1]["published_as"] == "ca-local-issuing-2"  # type: ignore[index]


async def test_waiting_request_is_shown_by_its_name(keeper: Keeper) -> None:
    """It has no certificate yet, and so no issuer."""
    await keeper.authorities.request("other", subject="CN=Corp", actor=ANNA)
    view = await keeper.authorities.show("other")
    assert (view["pending"], view["issuers"], view["root"]) == ("CN=Corp", [], None)
    assert (await keeper.authorities.show("local"))["pending"] is None
