"""Sessions: what comes out of them, what is told of Vault, and when it counts as returned."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.issuance.errors import Broken, Unreachable
from broker.keys.vault_answers import Away, VaultNotFound, VaultState
from broker.keys.vault_session import VaultConnections, VaultSession
from broker.keys.vault_settings import AppRoleSettings, Identity, TokenSettings, VaultSettings
from tests.fakes.clock import START, FakeClock
from tests.fakes.fake_time import FakeTime
from tests.fakes.fake_vault import FakeVault, answer, made_token, refused
from tests.fakes.stillness import Stillness

SEALED = refused(503, "Vault is sealed")


class Told:
    """An observer that keeps the outcomes of requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """Keep it."""
        self.asked.append((identity, str(outcome)))

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """Do nothing."""

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """Do nothing."""

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """Do nothing."""


class Bench:
    """Connections to a Vault of values, on a fake clock."""

    def __init__(self, state: Path) -> None:
        self.clock = FakeClock()
        self.time = FakeTime(self.clock)
        self.stillness = Stillness()
        self.vault, self.told = FakeVault(), Told()
        self.vault.on("transit/sign", answer({"data": {"signature": "vault:v1:x"}}))
        token = TokenSettings(read_token=lambda: b"hvs.t", place="file:/t")
        rotate = AppRoleSettings(
            read_role_id=lambda: b"r",
            read_secret_id=lambda: b"s",
            place="file:/s",
            is_wrapped=False,
        )
        self.vault.on("auth/approle/login", made_token("hvs.rotate"))
        self.vault.on("revoke-self", answer(None, 204))
        settings = VaultSettings(
            addresses=("https://a",),
            state_dir=state,
            identities={
                "": Identity(serve=token, rotate=rotate),
                "transit-ca": Identity(serve=token),
            },
        )
        self.connections = VaultConnections(
            settings,
            self.clock,
            observer=self.told,
            exchange=self.vault,
            blocking=self.vault.blocking,
            monotonic=lambda: (self.clock.now() - START).total_seconds(),
            pause=self.time.pause,
        )
        self.session = self.connections.serving("transit")
        self.returns = 0
        self.connections.on_return = self._returned

    def _returned(self) -> None:
        self.returns += 1

    async def sign(self, session: VaultSession | None = None) -> Any:
        """Have something signed."""
        return await (session or self.session).post("transit/sign/k", {"input": "aGk="})

    def state(self) -> VaultState:
        """Return the session's state."""
        return self.session.health().state

    async def watched(self, seconds: float) -> None:
        """Let the watch go on for so long."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while True:
            await self.stillness.come()
            due = self.time.next_due
            if due is None or due > end:
                break
            self.time.go_to_next()
        if end > self.clock.now():
            self.clock.advance(end - self.clock.now())


@pytest.fixture
async def bench(tmp_path: Path) -> Any:
    """All of it; it is closed after the test."""
    made = Bench(tmp_path)
    yield made
    await made.connections.close()


async def test_answer_is_its_data(bench: Bench) -> None:
    """For what is posted, what is read, and what hvac does."""
    bench.vault.on("transit/keys", answer({"data": {"latest_version": 1}}))
    bench.vault.on("sys/odd", answer({"data": None}))
    assert await bench.sign() == {"signature": "vault:v1:x"}
    assert await bench.session.get("transit/keys/k") == {"latest_version": 1}
    assert await bench.session.get("sys/odd") == {}
    assert await bench.session.run(lambda client: client.token) == "hvs.t"
    assert bench.told.asked == [("default", "ok")] * 4
    assert bench.session is bench.connections.serving("anything")
    assert bench.session is not bench.connections.serving("transit-ca")


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        pytest.param(SEALED, VaultState.SEALED, id="sealed"),
        pytest.param(refused(500), VaultState.FAILING, id="500"),
        pytest.param(refused(403, "permission denied"), VaultState.DENIED, id="denied"),
        pytest.param(refused(307, location="https://x/v1"), VaultState.REDIRECTING, id="307"),
    ],
)
async def test_whatever_keeps_vault_from_answering_is_unreachable(
    bench: Bench, raw: Any, state: VaultState
) -> None:
    """A signature leaves nothing at Vault; a change may have."""
    bench.vault.on("transit/", raw)
    with pytest.raises(Unreachable, match=r"^Vault: ") as raised:
        await bench.sign()
    assert raised.value.left_nothing
    assert bench.state() is state
    assert bench.told.asked[-1] == ("default", str(state))


async def test_change_that_was_not_answered_may_have_been_made(bench: Bench) -> None:
    """Whoever wanted it has to look."""
    slow = Away(VaultState.SLOW, "no answer within 5 s", left_nothing=False)
    bench.vault.on("rotate", slow)
    with pytest.raises(Unreachable) as raised:
        await bench.session.run(lambda client: client.adapter.post("/v1/transit/keys/k/rotate"))
    assert not raised.value.left_nothing


async def test_limit_names_the_time_to_come_again(bench: Bench) -> None:
    """By our own clock, from now on."""
    bench.vault.on("transit/", refused(429, "quota", retry_after="3"))
    with pytest.raises(Unreachable) as raised:
        await bench.sign()
    assert raised.value.retry_at == START + timedelta(seconds=3)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        pytest.param(refused(404), VaultNotFound, id="404"),
        pytest.param(refused(400, "bad"), Broken, id="400"),
    ],
)
async def test_refusal_of_the_request_says_that_vault_is_well(
    bench: Bench, raw: Any, kind: type[Broken]
) -> None:
    """It answered."""
    bench.vault.on("transit/", raw)
    with pytest.raises(kind):
        await bench.sign()
    assert bench.state() is VaultState.OK
    assert bench.told.asked == [("default", "answered")]


async def test_denial_is_told_until_the_same_is_granted(bench: Bench) -> None:
    """Whatever else works meanwhile."""
    bench.vault.on("transit/keys", refused(403, "permission denied"))
    with pytest.raises(Unreachable, match="403"):
        await bench.session.get("transit/keys/k")
    await bench.sign()
    assert bench.state() is VaultState.DENIED
    assert "transit/keys/k" in (bench.connections.health().warning() or "")
    bench.vault.on("transit/keys", answer({"data": {}}))
    await bench.session.get("transit/keys/k")
    assert bench.state() is VaultState.OK


async def test_denial_that_nobody_met_again_is_forgotten(bench: Bench) -> None:
    """After ten minutes; the request may have been a mistake."""
    bench.vault.on("transit/keys", refused(403, "permission denied"))
    with pytest.raises(Unreachable):
        await bench.session.get("transit/keys/k")
    bench.clock.advance(timedelta(minutes=11))
    await bench.sign()
    assert bench.state() is VaultState.OK


async def test_watch_notices_what_nobody_asks_for(bench: Bench) -> None:
    """Down and up, each within seconds; its return is told once."""
    bench.connections.watch()
    await bench.watched(2)
    assert bench.state() is VaultState.OK
    bench.vault.on("/v1/", SEALED)
    await bench.watched(6)
    assert bench.state() is VaultState.SEALED
    assert bench.returns == 0
    bench.vault.on("sys/health", answer({}))
    bench.vault.on("lookup-self", answer({"data": {}}))
    await bench.watched(2)
    assert bench.state() is VaultState.OK
    assert bench.returns == 1


async def test_log_tells_of_each_change_how_things_are_since(bench: Bench) -> None:
    """The state of a line is that of its moment, not the one before it."""
    bench.connections.watch()
    with capture_logs() as lines:
        for said in (SEALED, answer({"data": {}})):
            bench.vault.on("/v1/", said)
            await bench.watched(6)
    told = [(one["event"], one["identity"], one["state"]) for one in lines]
    assert told == [
        ("Vault cannot be used", "default", VaultState.SEALED),
        ("Vault can be used again", "default", VaultState.OK),
    ]


async def test_watch_goes_on_after_a_bug(bench: Bench) -> None:
    """Without it nobody would see that Vault has returned."""

    def stumble() -> None:
        bench.returns += 1
        raise LookupError("a bug")

    bench.connections.on_return = stumble
    bench.connections.watch()
    for count in (1, 2):
        bench.vault.on("/v1/", SEALED)
        await bench.watched(6)
        bench.vault.on("sys/health", answer({}))
        bench.vault.on("lookup-self", answer({"data": {}}))
        await bench.watched(6)
        assert bench.returns == count


async def test_vault_that_answers_looks_and_nothing_else_is_looked_at_less_often(
    bench: Bench,
) -> None:
    """Otherwise everything that waits would be started each second, for nothing."""
    bench.connections.watch()
    bench.vault.on("transit/sign", refused(500, "storage"))

    async def try_again() -> None:
        with pytest.raises(Unreachable):
            await bench.sign()

    await try_again()
    for _ in range(60):
        await bench.watched(1)
        if bench.state() is VaultState.OK:
            await try_again()
    assert 3 <= bench.returns <= 9
    bench.vault.on("transit/sign", answer({"data": {}}))
    await bench.watched(20)
    await bench.sign()
    assert bench.state() is VaultState.OK


async def test_identity_of_one_mount_is_let_alone_until_it_is_used(bench: Bench) -> None:
    """The credentials of an offline root lie there during a ceremony alone."""
    bench.connections.watch()
    await bench.watched(10)
    assert [each.identity for each in bench.connections.health().identities] == ["default"]
    await bench.sign(bench.connections.serving("transit-ca"))
    names = [each.identity for each in bench.connections.health().identities]
    assert names == ["default", "transit-ca"]


async def test_rotate_identity_lives_for_its_block(bench: Bench) -> None:
    """Its token is revoked, also where the block fails."""
    async with bench.connections.rotating("transit") as session:
        assert await session.run(lambda client: client.token) == "hvs.rotate"
    with pytest.raises(VaultNotFound):
        async with bench.connections.rotating("transit") as session:
            await session.get("nothing")
    revoked = [each.token for each in bench.vault.asked if "revoke-self" in each.path]
    assert revoked == ["hvs.rotate"] * 2


async def test_mount_without_a_rotate_identity_says_what_to_configure(bench: Bench) -> None:
    """Nothing is asked of Vault."""
    with pytest.raises(Broken, match=r"vault\.mounts\.transit-ca\.rotate"):
        async with bench.connections.rotating("transit-ca"):
            pass
    assert not bench.vault.asked


async def test_end_closes_everything(tmp_path: Path) -> None:
    """The token of somebody else is left alone."""
    bench = Bench(tmp_path)
    bench.connections.watch()
    await bench.watched(1)
    await bench.connections.close()
    assert bench.vault.is_closed
    assert not any("revoke" in path for path in bench.vault.paths())
    with pytest.raises(Unreachable, match="stopping"):
        await bench.session.run(lambda client: client.token)


async def test_nothing_is_shown_of_a_token(tmp_path: Path) -> None:
    """Whoever prints these finds none."""
    bench = Bench(tmp_path)
    shown: list[Callable[[], str]] = [bench.session.__repr__, bench.connections.__repr__]
    assert not any("hvs" in show() for show in shown)


async def test_mount_called_default_has_its_own_identity(tmp_path: Path) -> None:
    """And not that of all mounts that have none, which messages call so."""
    vault = FakeVault()
    vault.on("/v1/(kv|default)/", answer({"data": {}}))
    identities = {
        "": Identity(serve=TokenSettings(read_token=lambda: b"hvs.main", place="file:/m")),
        "default": Identity(serve=TokenSettings(read_token=lambda: b"hvs.own", place="file:/o")),
    }
    connections = VaultConnections(
        VaultSettings(addresses=("https://a",), state_dir=tmp_path, identities=identities),
        FakeClock(),
        exchange=vault,
        blocking=vault.blocking,
    )
    await connections.serving("kv").get("kv/x")
    assert vault.asked[-1].token == "hvs.main"
    await connections.serving("default").get("default/x")
    assert vault.asked[-1].token == "hvs.own"
    await connections.close()


async def test_limit_beyond_all_reason_is_unreachable(bench: Bench) -> None:
    """No date is that far away."""
    bench.vault.on("transit/sign", refused(429, "no", retry_after="9" * 30))
    with pytest.raises(Unreachable) as raised:
        await bench.sign()
    assert raised.value.retry_at == bench.clock.now() + timedelta(hours=1)


async def test_lease_beyond_all_reason_is_long(bench: Bench) -> None:
    """No clock counts that far."""
    bench.vault.on("lookup-self", answer({"data": {"ttl": 10**400, "renewable": True}}))
    assert await bench.sign()


async def test_token_that_may_not_look_at_itself_is_kept(bench: Bench) -> None:
    """A look that is denied brings no login every ten seconds."""
    bench.vault.on("lookup-self", refused(403, "permission denied"))
    bench.vault.on("renew-self", made_token("hvs.t", 3600))
    bench.connections.watch()
    await bench.watched(120)
    assert bench.vault.paths().count("POST auth/token/renew-self") == 1
    assert bench.state() is VaultState.OK


async def test_token_that_a_look_finds_revoked_is_replaced(bench: Bench) -> None:
    """Before anybody needs it."""
    bench.connections.watch()
    await bench.watched(2)
    bench.vault.on("lookup-self", refused(403, "permission denied", "invalid token"))
    await bench.watched(6)
    assert bench.state() is VaultState.DENIED


def read_value(client: Any) -> Any:
    """Read in KV as hvac does."""
    return client.adapter.get(url="/v1/kv/data/x")


async def test_value_that_is_granted_is_denied_no_longer(bench: Bench) -> None:
    """What hvac asks counts as what is posted does; another value stays denied."""
    bench.vault.on("kv/data", refused(403, "permission denied"))
    with pytest.raises(Unreachable) as raised:
        await bench.session.run(read_value)
    assert "vault-outage" in (raised.value.hint or "")
    await bench.session.run(lambda client: client.adapter.post(url="/v1/transit/sign/k", json={}))
    assert bench.state() is VaultState.DENIED
    bench.vault.on("kv/data", answer({"data": {}}))
    await bench.session.run(read_value)
    assert bench.state() is VaultState.OK


async def test_denial_is_forgotten_by_an_idle_broker(bench: Bench) -> None:
    """Nobody may ask for anything for days; meanwhile a sealed Vault is told of all the same."""
    bench.connections.watch()
    bench.vault.on("kv/data", refused(403, "permission denied"))
    with pytest.raises(Unreachable):
        await bench.session.run(read_value)
    await bench.watched(30)
    assert bench.state() is VaultState.DENIED
    bench.vault.on("lookup-self", SEALED)
    await bench.watched(6)
    assert bench.state() is VaultState.SEALED
    bench.vault.on("lookup-self", answer({"data": {}}))
    await bench.watched(10)
    assert bench.state() is VaultState.DENIED
    await bench.watched(600)
    assert bench.state() is VaultState.OK
