"""Logging in to a real Vault by every method, staying in, and leaving."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Unreachable
from broker.keys.vault_answers import VaultState
from broker.keys.vault_session import VaultConnections, VaultSession
from broker.keys.vault_settings import (
    AppRoleSettings,
    CertificateSettings,
    Identity,
    KubernetesSettings,
    LoginSettings,
    TokenSettings,
    VaultSettings,
)
from tests.peers import authority
from tests.peers.process import PeerFailed
from tests.peers.token_reviews import TokenReviews
from tests.peers.vault import Vault, make_client_certificate

pytestmark = pytest.mark.peers

POLICY: Final = """\
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "transit-logins/sign/key/+" { capabilities = ["update"] }
"""

SIGN: Final = "transit-logins/sign/key/sha2-256"
INPUT: Final = {"input": "aGVsbG8="}
ROLE: Final = {"token_policies": ["logins"], "token_no_default_policy": True}

_names: Final = itertools.count(1)


class Ledger:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.renewals: list[str] = []
        self.alarms: list[str] = []

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """Keep the outcome."""
        self.logins.append(outcome)

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """Keep the outcome."""
        self.renewals.append(outcome)

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """Keep the reason."""
        self.alarms.append(reason)


Connect = Callable[..., VaultConnections]


@pytest.fixture(scope="module")
def server(vault: Vault) -> Vault:
    """The Vault of all tests, with a key and a policy for these."""
    vault.enable("transit", "transit-logins")
    vault.ask("POST", "transit-logins/keys/key", {"type": "ecdsa-p256"})
    vault.write_policy("logins", POLICY)
    return vault


@pytest.fixture
def ledger() -> Ledger:
    """What the connections tell."""
    return Ledger()


@pytest.fixture
async def connect(server: Vault, tmp_path: Path, ledger: Ledger) -> AsyncIterator[Connect]:
    """Make connections as somebody; they are closed after the test."""
    made: list[VaultConnections] = []

    def make(serve: LoginSettings, rotate: LoginSettings | None = None) -> VaultConnections:
        settings = VaultSettings(
            addresses=(server.url,),
            state_dir=tmp_path / "state",
            ca_bundle=server.ca_bundle,
            identities={"": Identity(serve=serve, rotate=rotate)},
        )
        made.append(VaultConnections(settings, SystemClock(), observer=ledger))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def token_login(file: Path) -> TokenSettings:
    """Return the login by the token in *file*."""
    return TokenSettings(read_token=file.read_bytes, place=f"file:{file}")


async def is_signing(session: VaultSession) -> bool:
    """Sign something, and say whether a signature came back."""
    answer = await session.post(SIGN, INPUT)
    return str(answer["signature"]).startswith("vault:v1:")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a process or its clock does, for 50 s at most."""
    async with asyncio.timeout(50):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


class Approle:
    """An AppRole of its own in a Vault."""

    def __init__(self, vault: Vault, tmp_path: Path, **options: Any) -> None:
        self.vault = vault
        self.mount = f"approle-{next(_names)}"
        vault.enable_auth("approle", self.mount)
        vault.ask("POST", f"auth/{self.mount}/role/serve", {**ROLE, **options})
        self.role_id = tmp_path / f"{self.mount}.role"
        found = vault.ask("GET", f"auth/{self.mount}/role/serve/role-id")
        self.role_id.write_text(found["data"]["role_id"], "ascii")
        self.secret_id = tmp_path / f"{self.mount}.secret"

    def deliver_plain(self) -> str:
        """Lay a secret id where the broker reads it."""
        made = self.vault.ask("POST", f"auth/{self.mount}/role/serve/secret-id", {})
        self.secret_id.write_text(made["data"]["secret_id"], "ascii")
        return str(made["data"]["secret_id"])

    def deliver_wrapped(self, path: str | None = None, seconds: int = 60) -> str:
        """Lay a wrapping token there, made by asking *path*."""
        asked = path or f"auth/{self.mount}/role/serve/secret-id"
        made = self.vault.ask("POST", asked, {"a": "b"} if path else {}, wrap=f"{seconds}s")
        token = str(made["wrap_info"]["token"])
        self.secret_id.write_text(token + "\n", "ascii")
        return token

    def login(self, *, is_wrapped: bool) -> AppRoleSettings:
        """Return the login."""
        return AppRoleSettings(
            mount=self.mount,
            read_role_id=self.role_id.read_bytes,
            read_secret_id=self._read,
            place=f"file:{self.secret_id}",
            is_wrapped=is_wrapped,
        )

    def _read(self) -> bytes:
        try:
            return self.secret_id.read_bytes()
        except OSError as error:
            raise Broken(f"{self.secret_id} cannot be read") from error


@pytest.fixture
def approle(server: Vault, tmp_path: Path) -> Approle:
    """An AppRole whose tokens last a minute."""
    return Approle(server, tmp_path, token_ttl="60s")


async def test_approle_logs_in_and_revokes_its_token_at_the_end(
    server: Vault, approle: Approle, connect: Connect
) -> None:
    """Nothing that our own login made stays behind."""
    approle.deliver_plain()
    connections = connect(approle.login(is_wrapped=False))
    accessors = set(server.ask("LIST", "auth/token/accessors")["data"]["keys"])
    assert await is_signing(connections.serving("transit-logins"))
    during = set(server.ask("LIST", "auth/token/accessors")["data"]["keys"])
    assert len(during - accessors) == 1
    await connections.close()
    assert set(server.ask("LIST", "auth/token/accessors")["data"]["keys"]) == accessors


async def test_token_of_somebody_else_survives_us(
    server: Vault, tmp_path: Path, connect: Connect
) -> None:
    """A token that was handed to us is not ours to end."""
    file = tmp_path / "token"
    file.write_text(server.token("logins"), "ascii")
    connections = connect(token_login(file))
    assert await is_signing(connections.serving("transit-logins"))
    await connections.close()
    server.ask("GET", "auth/token/lookup-self", token=file.read_text("ascii"))


async def test_wrapped_secret_id_is_opened_once_and_kept(
    approle: Approle, connect: Connect, ledger: Ledger
) -> None:
    """It serves for the logins that follow, though the wrapping token is spent."""
    approle.deliver_wrapped()
    connections = connect(approle.login(is_wrapped=True))
    session = connections.serving("transit-logins")
    assert await is_signing(session)
    for _ in range(2):
        await session.run(lambda client: client.adapter.post("/v1/auth/token/revoke-self"))
        assert await is_signing(session)
    assert ledger.logins == ["ok"] * 3
    assert not ledger.alarms


async def test_restart_with_a_spent_wrapping_token_is_no_alarm(
    approle: Approle, connect: Connect, ledger: Ledger
) -> None:
    """What we opened ourselves before the restart is told as such, until a new one is there."""
    approle.deliver_wrapped()
    first = connect(approle.login(is_wrapped=True))
    assert await is_signing(first.serving("transit-logins"))
    await first.close()

    again = connect(approle.login(is_wrapped=True))
    session = again.serving("transit-logins")
    with pytest.raises(Unreachable, match="was opened before; deliver a new one"):
        await session.post(SIGN, INPUT)
    assert not ledger.alarms
    assert session.health().state is VaultState.DENIED

    approle.deliver_wrapped()
    assert await is_signing(session)
    assert session.health().state is VaultState.OK


async def test_wrapping_token_that_somebody_else_opened_is_an_alarm(
    server: Vault,
    approle: Approle,
    connect: Connect,
    ledger: Ledger,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The secret id may be in other hands; it is told once, without repeating the token."""
    token = approle.deliver_wrapped()
    server.ask("POST", "sys/wrapping/unwrap", {"token": token})
    session = connect(approle.login(is_wrapped=True)).serving("transit-logins")
    for _ in range(2):
        with pytest.raises(Unreachable, match="somebody else opened it") as raised:
            await session.post(SIGN, INPUT)
        assert token not in str(raised.value)
    assert len(ledger.alarms) == 1
    assert ledger.logins == ["alarm"]


async def test_wrapping_token_made_by_another_path_is_not_opened(
    server: Vault, approle: Approle, connect: Connect, ledger: Ledger
) -> None:
    """A token that somebody wrapped around a secret of their own is an alarm, and stays whole."""
    token = approle.deliver_wrapped("sys/wrapping/wrap")
    session = connect(approle.login(is_wrapped=True)).serving("transit-logins")
    with pytest.raises(Unreachable, match="was made by 'sys/wrapping/wrap'"):
        await session.post(SIGN, INPUT)
    assert len(ledger.alarms) == 1
    server.ask("POST", "sys/wrapping/unwrap", {"token": token})


async def test_new_wrapping_token_is_opened_without_being_needed(
    server: Vault, approle: Approle, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would expire before the next login."""
    monkeypatch.setattr("broker.keys.vault_session.QUIET_SECONDS", 0.1)
    approle.deliver_wrapped()
    connections = connect(approle.login(is_wrapped=True))
    connections.watch()
    session = connections.serving("transit-logins")
    assert await is_signing(session)
    token = approle.deliver_wrapped()

    def is_opened() -> bool:
        try:
            server.ask("POST", "sys/wrapping/lookup", {"token": token})
        except PeerFailed:
            return True
        return False

    await until(is_opened)
    assert await is_signing(session)


async def test_wrong_secret_id_is_told_without_being_shown(
    approle: Approle, connect: Connect
) -> None:
    """The message names the method; the right one works at once."""
    approle.secret_id.write_text("marked-secret-id-4711", "ascii")
    session = connect(approle.login(is_wrapped=False)).serving("transit-logins")
    with pytest.raises(Unreachable, match=r"approle at auth/approle-\d+: POST") as raised:
        await session.post(SIGN, INPUT)
    assert "marked-secret-id-4711" not in repr(raised.value)
    assert raised.value.left_nothing
    approle.deliver_plain()
    assert await is_signing(session)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory, server: Vault) -> Iterator[TokenReviews]:
    """A Kubernetes that reviews tokens, and a Vault that asks it."""
    with TokenReviews(tmp_path_factory.mktemp("reviews")) as made:
        server.enable_kubernetes(made)
        server.ask(
            "POST",
            "auth/kubernetes/role/serve",
            {
                "bound_service_account_names": "penstock",
                "bound_service_account_namespaces": "penstock",
                "audience": "vault",
                "token_ttl": "60s",
                **ROLE,
            },
        )
        yield made


async def test_kubernetes_reads_the_projected_token_at_each_login(
    reviews: TokenReviews, tmp_path: Path, connect: Connect
) -> None:
    """The kubelet replaces the file; the token of before is of no use after that."""
    file = tmp_path / "projected"
    file.write_text(reviews.mint("penstock"), "ascii")
    login = KubernetesSettings(role="serve", token_file=file)
    session = connect(login).serving("transit-logins")
    assert await is_signing(session)
    reviews.revoke(file.read_text("ascii"))
    file.write_text(reviews.mint("penstock"), "ascii")
    await session.run(lambda client: client.adapter.post("/v1/auth/token/revoke-self"))
    assert await is_signing(session)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"account": "somebody"}, id="another-account"),
        pytest.param({"account": "penstock", "audience": "another"}, id="another-audience"),
    ],
)
async def test_kubernetes_token_of_others_does_not_let_us_in(
    reviews: TokenReviews, tmp_path: Path, connect: Connect, claims: dict[str, Any]
) -> None:
    """It waits for the right token, which then works at once."""
    file = tmp_path / "projected"
    file.write_text(reviews.mint(**claims), "ascii")
    session = connect(KubernetesSettings(role="serve", token_file=file)).serving("transit-logins")
    with pytest.raises(Unreachable, match="login by kubernetes at auth/kubernetes"):
        await session.post(SIGN, INPUT)
    file.write_text(reviews.mint("penstock"), "ascii")
    assert await is_signing(session)


async def test_client_certificate_logs_in(server: Vault, tmp_path: Path, connect: Connect) -> None:
    """The one that the role knows does; one of another issuer does not."""
    root = authority.make_root("clients")
    mount = f"cert-{next(_names)}"
    server.enable_auth("cert", mount)
    role = {"certificate": root.certificate_pem.decode(), "token_ttl": "60s", **ROLE}
    server.ask("POST", f"auth/{mount}/certs/serve", role)
    certificate, key = make_client_certificate(tmp_path, "penstock", root)
    login = CertificateSettings(mount=mount, role="serve", certificate=certificate, key=key)
    assert await is_signing(connect(login).serving("transit-logins"))

    other = authority.make_root("others")
    certificate, key = make_client_certificate(tmp_path / "other", "penstock", other)
    login = CertificateSettings(mount=mount, role="serve", certificate=certificate, key=key)
    with pytest.raises(Unreachable, match=f"certificate at auth/{mount}"):
        await connect(login).serving("transit-logins").post(SIGN, INPUT)


async def test_token_is_renewed_at_two_thirds_of_its_lease(
    server: Vault, tmp_path: Path, connect: Connect, ledger: Ledger
) -> None:
    """A lease of 3 s is renewed again and again, and no login is needed."""
    approle = Approle(server, tmp_path, token_ttl="3s", token_max_ttl="1h")
    approle.deliver_plain()
    session = connect(approle.login(is_wrapped=False)).serving("transit-logins")
    assert await is_signing(session)
    await until(lambda: len(ledger.renewals) >= 2)
    assert await is_signing(session)
    assert set(ledger.renewals) == {"ok"}
    assert ledger.logins == ["ok"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"token_ttl": "3s", "token_max_ttl": "5s"}, id="max-ttl"),
        pytest.param({"token_ttl": "2s", "token_type": "batch"}, id="batch"),
    ],
)
async def test_token_that_cannot_be_renewed_for_ever_is_replaced_in_time(
    server: Vault, tmp_path: Path, connect: Connect, ledger: Ledger, options: dict[str, Any]
) -> None:
    """The next login comes before the end, and no request is ever refused."""
    approle = Approle(server, tmp_path, **options)
    approle.deliver_plain()
    session = connect(approle.login(is_wrapped=False)).serving("transit-logins")
    async with asyncio.timeout(50):
        while len(ledger.logins) < 2:
            assert await is_signing(session)
            assert session.health().state is VaultState.OK
            await asyncio.sleep(0.1)
    assert set(ledger.logins) == {"ok"}


async def test_periodic_token_is_renewed(
    server: Vault, tmp_path: Path, connect: Connect, ledger: Ledger
) -> None:
    """A token with a period lives for as long as it is renewed."""
    file = tmp_path / "token"
    file.write_text(server.token("logins", period="2s"), "ascii")
    session = connect(token_login(file)).serving("transit-logins")
    assert await is_signing(session)
    await until(lambda: len(ledger.renewals) >= 2)
    assert await is_signing(session)
    assert ledger.logins == ["ok"]


async def test_token_revoked_in_flight_costs_one_login_however_many_ask(
    server: Vault, approle: Approle, connect: Connect, ledger: Ledger
) -> None:
    """Forty signatures run into the 403 at once; each has its answer after one new login."""
    approle.deliver_plain()
    session = connect(approle.login(is_wrapped=False)).serving("transit-logins")
    await is_signing(session)
    await session.run(lambda client: client.adapter.post("/v1/auth/token/revoke-self"))
    assert all(await asyncio.gather(*(is_signing(session) for _ in range(40))))
    assert ledger.logins == ["ok", "ok"]


async def test_what_the_policy_denies_is_unreachable_and_told(
    approle: Approle, connect: Connect, ledger: Ledger
) -> None:
    """A new login is tried where the token is not new; the path stands in the warning."""
    approle.deliver_plain()
    connections = connect(approle.login(is_wrapped=False))
    session = connections.serving("transit-logins")
    with pytest.raises(Unreachable, match="transit-logins/sign/other") as raised:
        await session.post("transit-logins/sign/other/sha2-256", INPUT)
    assert raised.value.left_nothing
    warning = connections.health().warning()
    assert warning is not None
    assert "denied for 'default' since" in warning
    assert await is_signing(session)
    assert session.health().state is VaultState.DENIED, "the other path is denied all the same"
    assert ledger.logins == ["ok"]


async def test_rotate_identity_is_logged_in_for_its_block_alone(
    server: Vault, approle: Approle, tmp_path: Path, connect: Connect
) -> None:
    """Its token is ended when the block ends, also when it fails."""
    file = tmp_path / "token"
    file.write_text(server.token("logins"), "ascii")
    approle.deliver_plain()
    connections = connect(token_login(file), approle.login(is_wrapped=False))
    accessors = set(server.ask("LIST", "auth/token/accessors")["data"]["keys"])
    async with connections.rotating("transit-logins") as session:
        assert await is_signing(session)
        during = set(server.ask("LIST", "auth/token/accessors")["data"]["keys"])
    assert len(during - accessors) == 1
    assert set(server.ask("LIST", "auth/token/accessors")["data"]["keys"]) == accessors
    with pytest.raises(Unreachable, match="403"):
        async with connections.rotating("transit-logins") as session:
            await session.run(lambda client: client.adapter.get("/v1/nowhere/at/all"))
    assert set(server.ask("LIST", "auth/token/accessors")["data"]["keys"]) == accessors


async def test_without_a_rotate_identity_nothing_is_rotated(
    server: Vault, tmp_path: Path, connect: Connect
) -> None:
    """The sentence says what to configure."""
    file = tmp_path / "token"
    file.write_text(server.token("logins"), "ascii")
    with pytest.raises(Broken, match=r"configure vault\.rotate"):
        async with connect(token_login(file)).rotating("transit-logins"):
            pass


async def test_libraries_log_no_token(
    server: Vault, approle: Approle, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where a person sets everything to DEBUG."""
    caplog.set_level(logging.DEBUG)
    secret_id = approle.deliver_plain()
    session = connect(approle.login(is_wrapped=False)).serving("transit-logins")
    assert await is_signing(session)
    token = await session.run(lambda client: str(client.token))
    said = "\n".join(f"{each.getMessage()} {each.args}" for each in caplog.records)
    assert token not in said
    assert secret_id not in said
