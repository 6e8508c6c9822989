"""Requests from the event loop: headers, addresses, and what no connection was made for."""

import ssl
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, Denied, VaultState
from broker.keys.vault_http import VaultHttp, headers_for, tls_context
from tests.fakes.fake_vault import FakeVault, answer, refused

A, B = "https://a:8200", "https://b:8200"


def made(vault: FakeVault, namespace: str | None = None) -> VaultHttp:
    """Return requests over two addresses."""
    return VaultHttp(vault, Addresses((A, B), lambda: 0.0), namespace=namespace)


async def test_request_carries_token_and_namespace() -> None:
    """And says that it is meant for Vault."""
    vault = FakeVault()
    vault.on("/v1/transit/sign", answer({"data": {"signature": "x"}}))
    found = await made(vault, "pki").ask("POST", "transit/sign/k", {"input": "aGk="}, "hvs.token")
    assert found["data"] == {"signature": "x"}
    (asked,) = vault.asked
    assert asked.headers == headers_for("hvs.token", "pki")
    assert asked.headers["X-Vault-Namespace"] == "pki"
    assert asked.token == "hvs.token"
    assert asked.headers["X-Vault-Request"] == "true"
    assert asked.json() == {"input": "aGk="}


async def test_next_address_is_asked_and_answers() -> None:
    """Where the first one cannot."""
    vault = FakeVault()
    vault.on("/v1/x", answer({}))
    vault.on("a:8200/v1/x", refused(503, "Vault is sealed"))
    assert await made(vault).ask("GET", "x", None, None) == {}
    assert [each.address for each in vault.asked] == [A, B]


@pytest.mark.parametrize(
    ("status", "kind"),
    [pytest.param(403, Denied, id="403"), pytest.param(400, Broken, id="400")],
)
async def test_refusal_is_an_answer(status: int, kind: type[Exception]) -> None:
    """Nobody else is asked."""
    vault = FakeVault()
    vault.on("/v1/x", refused(status))
    with pytest.raises(kind):
        await made(vault).ask("GET", "x", None, "t")
    assert len(vault.asked) == 1


async def test_all_faults_are_told() -> None:
    """By address."""
    vault = FakeVault()
    vault.on("/v1/x", Away(VaultState.UNREACHABLE, "refused"))
    with pytest.raises(Away, match=f"{A}: refused; {B}: refused"):
        await made(vault).ask("GET", "x", None, "t")


@pytest.mark.parametrize(
    ("status", "state", "meaning"),
    [
        pytest.param(503, VaultState.SEALED, "sealed", id="sealed"),
        pytest.param(501, VaultState.SEALED, "not initialised", id="not-initialised"),
        pytest.param(472, VaultState.FAILING, "disaster recovery", id="disaster-recovery"),
        pytest.param(418, VaultState.FAILING, "cannot serve", id="odd"),
    ],
)
async def test_probe_says_what_the_status_means(
    status: int, state: VaultState, meaning: str
) -> None:
    """It shows no token, and asks in no namespace."""
    vault = FakeVault()
    vault.on("sys/health", refused(status))
    with pytest.raises(Away, match=meaning) as raised:
        await made(vault, "pki").probe(A)
    assert raised.value.state is state
    assert vault.asked[0].headers == headers_for(None, None)


async def test_probe_of_a_node_that_is_well_says_nothing() -> None:
    """Standbys answer 200 as well, since that is asked for."""
    vault = FakeVault()
    await made(vault).probe(B)
    assert vault.paths() == ["GET sys/health?standbyok=true&perfstandbyok=true"]


def test_bundle_that_is_none_is_told(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(Broken, match=r"no-bundle\.pem"):
        tls_context(tmp_path / "no-bundle.pem")
    assert tls_context(None).verify_mode is ssl.CERT_REQUIRED


async def test_signatures_are_told_with_what_vault_calls_the_request() -> None:
    """Of every key, and of nothing else; the token is in none of it."""
    vault = FakeVault()
    vault.on("/v1/mount/transit/sign/k", answer({"request_id": "r-1", "data": {}}))
    vault.on("/v1/mount/transit/encrypt/k", answer({"request_id": "r-2", "data": {}}))
    http = made(vault)
    told: list[tuple[str, str | None]] = []
    http.watch_signatures(lambda key, request: told.append((key, request)))
    document = {"input": "aGk=", "key_version": 3}
    await http.ask("POST", "mount/transit/sign/k/sha2-256", document, "hvs.token")
    await http.ask("POST", "mount/transit/encrypt/k", {"plaintext": "aGk="}, "hvs.token")
    assert told == [("vault:mount/transit/k#3", "r-1")]


async def test_signature_without_an_answer_is_told_as_such() -> None:
    """It may have been made; one for which no connection was made was not."""
    vault = FakeVault()
    vault.on("a:8200", Away(VaultState.UNREACHABLE, "refused"))
    vault.on("b:8200", Away(VaultState.SLOW, "no answer", left_nothing=False))
    http = made(vault)
    told: list[tuple[str, str | None]] = []
    http.watch_signatures(lambda key, request: told.append((key, request)))
    with pytest.raises(Away):
        await http.ask("POST", "transit/sign/k/sha2-256", {"key_version": 1}, "hvs.token")
    assert told == [("vault:transit/k#1", None)]
