"""The token of an identity: one login at a time, renewed in time, given back at the end."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import hvac
import pytest
from structlog.testing import capture_logs

from broker.issuance.errors import Broken
from broker.keys.vault_answers import Away, Denied, VaultState
from broker.keys.vault_health import Standing
from broker.keys.vault_logins import Grant
from broker.keys.vault_tokens import LOGIN, TokenKeeper
from broker.keys.vault_wrapping import Intercepted, UsedUp
from tests.fakes.clock import START, FakeClock
from tests.fakes.fake_time import FakeTime
from tests.fakes.stillness import Stillness


class FakeLogin:
    """A login whose outcomes are said in advance."""

    what = "approle at auth/approle"
    is_prompt = True

    def __init__(self) -> None:
        self.outcomes: list[Grant | Exception] = []
        self.shown = "one"
        self.count = 0

    def evidence(self) -> str:
        """Return what is said to lie there."""
        return self.shown

    def log_in(self, client: hvac.Client) -> Grant:
        """Return or raise the next outcome; the last one stays."""
        self.count += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FakeCaller:
    """Runs calls at once; renewals and revocations have outcomes of their own."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.asked: list[tuple[str, str | None]] = []
        self.token: str | None = None
        self.adapter = self

    def post(self, url: str, json: Any) -> Any:
        """Answer a renewal or revocation."""
        self.asked.append((url.rpartition("/")[2], self.token))
        outcome = self.outcomes.pop(0) if self.outcomes else {}
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def run(self, call: Callable[[Any], Any], token: str | None) -> Any:
        """Run it, giving way to others once as a thread would."""
        await asyncio.sleep(0)
        self.token = token
        return call(self)


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.renewals: list[str] = []
        self.alarms: list[str] = []

    def vault_asked(self, *, identity: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def vault_login(self, *, identity: str, outcome: str) -> None:
        """Keep it."""
        self.logins.append(outcome)

    def vault_renewed(self, *, identity: str, outcome: str) -> None:
        """Keep it."""
        self.renewals.append(outcome)

    def vault_alarm(self, *, identity: str, reason: str) -> None:
        """Keep it."""
        self.alarms.append(reason)


class Bench:
    """A keeper on a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.time = FakeTime(self.clock)
        self.stillness = Stillness()
        self.login, self.caller, self.told = FakeLogin(), FakeCaller(), Told()
        self.standing = Standing("default", self.clock)
        self.keeper = TokenKeeper(
            "default",
            self.login,
            caller=self.caller,
            standing=self.standing,
            observer=self.told,
            monotonic=lambda: (self.clock.now() - START).total_seconds(),
            pause=self.time.pause,
        )

    async def go(self, seconds: float) -> None:
        """Let so much time pass, timer by timer."""
        end = self.clock.now() + timedelta(seconds=seconds)
        await self.stillness.come()
        while self.time.next_due is not None and self.time.next_due <= end:
            self.time.go_to_next()
            await self.stillness.come()
        if end > self.clock.now():
            self.clock.advance(end - self.clock.now())


@pytest.fixture
async def bench() -> Bench:
    """All of it."""
    return Bench()


def grant(token: str = "hvs.a", seconds: int = 60, **more: Any) -> Grant:
    """Return a token of our own."""
    options: dict[str, Any] = {"is_renewable": True, "is_own": True, **more}
    return Grant(token=token, seconds=seconds, **options)


def renewed(seconds: int) -> dict[str, Any]:
    """Return the answer to a renewal."""
    return {"auth": {"lease_duration": seconds, "renewable": True}}


async def test_however_many_ask_one_login_is_made(bench: Bench) -> None:
    """And the token is kept for whoever comes later."""
    bench.login.outcomes = [grant()]
    held = await asyncio.gather(*(bench.keeper.token() for _ in range(10)))
    assert {each.text for each in held} == {"hvs.a"}
    assert (await bench.keeper.token()).text == "hvs.a"
    assert bench.login.count == 1
    assert bench.told.logins == ["ok"]
    assert bench.standing.current().state is VaultState.OK
    assert "hvs.a" not in repr(held)
    await bench.keeper.close()


async def test_token_is_renewed_at_two_thirds_of_its_lease(bench: Bench) -> None:
    """Again and again."""
    bench.login.outcomes = [grant(seconds=60)]
    bench.caller.outcomes = [renewed(60)] * 2
    await bench.keeper.token()
    await bench.go(39)
    assert not bench.told.renewals
    await bench.go(2)
    assert bench.told.renewals == ["ok"]
    await bench.go(40)
    assert bench.told.renewals == ["ok", "ok"]
    assert bench.login.count == 1
    await bench.keeper.close()


async def test_renewal_goes_on_while_vault_is_away_and_the_lease_lasts(bench: Bench) -> None:
    """Its return finds the token alive."""
    bench.login.outcomes = [grant(seconds=90)]
    bench.caller.outcomes = [Away(VaultState.SEALED, "sealed")] * 3 + [renewed(90)]
    await bench.keeper.token()
    await bench.go(75)
    assert bench.told.renewals == ["sealed"] * 3 + ["ok"]
    assert bench.login.count == 1
    await bench.keeper.close()


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        pytest.param(grant(seconds=60), renewed(5), id="near-max-ttl"),
        pytest.param(grant(seconds=60), Denied("403", is_token_bad=True), id="revoked"),
        pytest.param(grant(seconds=60), Broken("400"), id="refused"),
        pytest.param(grant(seconds=60, is_renewable=False), None, id="not-renewable"),
    ],
)
async def test_token_that_renewal_does_not_help_is_replaced_before_its_end(
    bench: Bench, first: Grant, answer: Any
) -> None:
    """By one new login."""
    bench.login.outcomes = [first, grant("hvs.b", 3600)]
    bench.caller.outcomes = [answer]
    await bench.keeper.token()
    await bench.go(59)
    assert (await bench.keeper.token()).text == "hvs.b"
    assert bench.login.count == 2
    await bench.keeper.close()


async def test_lease_that_ended_while_vault_was_away_means_a_new_login(bench: Bench) -> None:
    """The first one who asks afterwards has it."""
    bench.login.outcomes = [grant(seconds=30), Away(VaultState.UNREACHABLE, "away")]
    bench.caller.outcomes = [Away(VaultState.UNREACHABLE, "away")] * 99
    await bench.keeper.token()
    await bench.go(60)
    with pytest.raises(Away):
        await bench.keeper.token()
    assert bench.standing.current().state is VaultState.UNREACHABLE
    bench.login.outcomes = [grant("hvs.b")]
    await bench.go(2)
    assert (await bench.keeper.token()).text == "hvs.b"
    assert bench.standing.current().state is VaultState.OK
    await bench.keeper.close()


async def test_token_that_never_ends_is_let_alone(bench: Bench) -> None:
    """Nothing is renewed."""
    bench.login.outcomes = [grant(seconds=0)]
    await bench.keeper.token()
    await bench.go(1_000_000)
    assert (await bench.keeper.token()).text == "hvs.a"
    assert not bench.caller.asked
    await bench.keeper.close()


async def test_refused_token_is_replaced_once_for_all_who_were_refused(bench: Bench) -> None:
    """Whoever comes late takes the new one."""
    bench.login.outcomes = [grant(), grant("hvs.b")]
    held = await bench.keeper.token()
    bad = Denied("403", is_token_bad=True)
    new = await asyncio.gather(*(bench.keeper.after_refusal(held, bad) for _ in range(5)))
    assert [each.text for each in new if each] == ["hvs.b"] * 5
    assert bench.login.count == 2
    await bench.keeper.close()


async def test_denial_of_a_young_token_brings_no_new_login(bench: Bench) -> None:
    """Its policies are what they are; an older one may have been given others since."""
    bench.login.outcomes = [grant(), grant("hvs.b")]
    held = await bench.keeper.token()
    denied = Denied("403", is_token_bad=False)
    assert await bench.keeper.after_refusal(held, denied) is None
    await bench.go(11)
    new = await bench.keeper.after_refusal(held, denied)
    assert new is not None
    assert new.text == "hvs.b"
    await bench.keeper.close()


@pytest.mark.parametrize(
    ("error", "outcome", "pause"),
    [
        pytest.param(Away(VaultState.SEALED, "sealed"), "sealed", 1, id="away"),
        pytest.param(Away(VaultState.LIMITED, "429", retry_after=7.0), "limited", 7, id="limited"),
        pytest.param(Denied("403", is_token_bad=False), "denied", 1, id="denied"),
        pytest.param(Broken("400: invalid secret id"), "denied", 1, id="wrong"),
        pytest.param(UsedUp("opened before"), "denied", 1, id="used-up"),
        pytest.param(Intercepted("gone"), "alarm", 1, id="intercepted"),
    ],
)
async def test_failed_login_is_not_repeated_by_everyone_who_asks(
    bench: Bench, error: Exception, outcome: str, pause: float
) -> None:
    """For a moment they are told what it said; new evidence is shown at once."""
    bench.login.outcomes = [error]
    for _ in range(3):
        with pytest.raises((Away, Denied)) as raised:
            await bench.keeper.token()
    assert bench.login.count == 1
    assert bench.told.logins == [outcome]
    assert not bench.standing.current().is_up
    if isinstance(raised.value, Denied):
        assert raised.value.what == LOGIN
    await bench.go(pause)
    with pytest.raises((Away, Denied)):
        await bench.keeper.token()
    assert bench.login.count == 2
    bench.login.outcomes = [grant()]
    bench.login.shown = "another"
    assert (await bench.keeper.token()).text == "hvs.a"
    await bench.keeper.close()


async def test_wrong_evidence_is_shown_ever_more_rarely(bench: Bench) -> None:
    """Five wrong secret ids in a row lock a role."""
    bench.login.outcomes = [Broken("invalid role or secret ID")]
    for _ in range(600):
        await bench.go(1)
        with pytest.raises(Denied):
            await bench.keeper.token()
    assert bench.login.count <= 5


async def test_possible_interception_is_told_once(bench: Bench) -> None:
    """Each look meets it again; one alarm is enough."""
    bench.login.outcomes = [Intercepted("gone")]
    for _ in range(3):
        await bench.go(400)
        with pytest.raises(Denied):
            await bench.keeper.look()
    assert bench.login.count == 3
    assert bench.told.alarms == ["gone"]


async def test_look_logs_in_where_there_is_no_token_or_new_evidence(bench: Bench) -> None:
    """Otherwise it does nothing."""
    bench.login.outcomes = [grant(), grant("hvs.b")]
    for _ in range(3):
        await bench.keeper.look()
    assert bench.login.count == 1
    bench.login.shown = "another"
    await bench.keeper.look()
    assert (await bench.keeper.token()).text == "hvs.b"
    bench.login.is_prompt = False
    bench.login.shown = "a third"
    await bench.keeper.look()
    assert bench.login.count == 2
    await bench.keeper.close()


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        pytest.param(grant(), [("revoke-self", "hvs.a")], id="own"),
        pytest.param(grant(is_own=False), [], id="somebody-else's"),
        pytest.param(grant(is_revocable=False), [], id="batch"),
    ],
)
async def test_only_what_our_login_made_is_revoked_at_the_end(
    bench: Bench, made: Grant, asked: list[tuple[str, str]]
) -> None:
    """A second end does nothing."""
    bench.login.outcomes = [made]
    await bench.keeper.token()
    await bench.keeper.close()
    await bench.keeper.close()
    assert bench.caller.asked == asked


async def test_end_does_not_fail_because_vault_is_away(bench: Bench) -> None:
    """The token ends by itself."""
    bench.login.outcomes = [grant()]
    await bench.keeper.token()
    bench.caller.outcomes = [Away(VaultState.SEALED, "sealed")]
    await bench.keeper.close()


async def test_end_of_a_token_of_others_is_told_once(bench: Bench) -> None:
    """However long nobody lays down another one."""
    bench.login.outcomes = [grant("hvs.a", 9, is_own=False)]
    await bench.keeper.token()
    bench.caller.outcomes = [Denied("no", is_token_bad=True)] * 100
    bench.login.outcomes = [Denied("no", is_token_bad=True)]
    with capture_logs() as logs:
        await bench.go(60)
    (told,) = [line for line in logs if line["event"] == "Vault token ends soon"]
    assert 0 <= told["seconds"] <= 9
    await bench.keeper.close()


@pytest.mark.parametrize("is_root", [True, False])
async def test_root_token_is_known_for_one(bench: Bench, *, is_root: bool) -> None:
    """And any other one is not."""
    bench.login.outcomes = [grant(is_root=is_root)]
    await bench.keeper.token()
    assert bench.standing.current().is_root is is_root
    bench.standing.becomes(VaultState.SEALED, "sealed")
    assert bench.standing.current().is_root is is_root
    await bench.keeper.close()
