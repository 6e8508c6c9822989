"""A listener without a certificate: waited for without an end, or for a while."""

import asyncio

import pytest

from broker.app import first_certificate
from broker.app.first_certificate import open_later, wait_for_certificate
from broker.issuance.errors import Broken, Unreachable


class FakeIdentity:
    """A certificate that comes after so many looks, or an error."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.is_usable = False
        self.trouble: str | None = None
        self.looked = asyncio.Event()

    async def refresh(self) -> None:
        """Look once; the last answer is given again and again."""
        self.looked.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            self.trouble = str(answer)
            raise answer
        self.is_usable = True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no time between two looks."""
    monkeypatch.setattr(first_certificate, "PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize("answers", [(None,), (Unreachable("on its way"), None)], ids=["1", "2"])
async def test_certificate_that_comes_in_time_is_waited_for(
    answers: tuple[Exception | None, ...],
) -> None:
    """Whether the CA has it at once or a little later."""
    identity = FakeIdentity(*answers)
    await wait_for_certificate(identity, asyncio.Event())  # type: ignore[arg-type]  # fake
    assert identity.is_usable


async def test_ca_that_refuses_is_not_waited_for() -> None:
    """There is a turn to go back to, and clients wait."""
    identity = FakeIdentity(Broken("no profile names that upstream"))
    with pytest.raises(Broken, match="no profile"):
        await wait_for_certificate(identity, asyncio.Event())  # type: ignore[arg-type]  # fake


async def test_ca_that_is_slow_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the reason is told."""
    monkeypatch.setattr(first_certificate, "LONGEST_SECONDS", 0.05)
    identity = FakeIdentity(Unreachable("order 7 is on its way"))
    with pytest.raises(Unreachable, match=r"within 0\.05 s: order 7 is on its way"):
        await wait_for_certificate(identity, asyncio.Event())  # type: ignore[arg-type]  # fake


async def test_broker_that_is_told_to_end_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pause would have been."""
    monkeypatch.setattr(first_certificate, "PAUSE_SECONDS", 60.0)
    identity, stopping = FakeIdentity(Unreachable("on its way")), asyncio.Event()
    waiting = asyncio.create_task(
        wait_for_certificate(identity, stopping)  # type: ignore[arg-type]  # fake
    )
    await identity.looked.wait()
    stopping.set()
    with pytest.raises(Unreachable, match="on its way"):
        await waiting


async def test_first_turn_waits_whatever_the_ca_says() -> None:
    """Nothing else could be served; once it is there, the listener is opened."""
    identity = FakeIdentity(Broken("refused"), Unreachable("away"), None)
    opened: list[bool] = []

    async def open_acme() -> None:
        opened.append(identity.is_usable)

    await open_later(identity, open_acme)  # type: ignore[arg-type]  # fake
    assert opened == [True]
