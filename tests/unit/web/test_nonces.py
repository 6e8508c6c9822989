"""Nonces: each is good once, at the boot that made it, for a while."""

from datetime import timedelta

import pytest

from broker.protocol.encoding import is_base64url, parse_base64url
from broker.protocol.problems import Problem, ProblemType
from broker.web import nonces as module
from broker.web.nonces import LIFETIME, WINDOW_AGE, WINDOW_SIZE, BootNonces
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock to turn."""
    return FakeClock()


async def refusal_of(nonces: BootNonces, nonce: str) -> ProblemType | None:
    """Return why *nonce* is refused, or None if it is taken."""
    try:
        await nonces.redeem(nonce)
    except Problem as problem:
        return problem.type
    return None


async def test_nonce_is_taken_once(clock: FakeClock) -> None:
    """The second time it is spent."""
    nonces = BootNonces(clock)
    nonce = nonces.issue()
    assert await refusal_of(nonces, nonce) is None
    assert await refusal_of(nonces, nonce) is ProblemType.BAD_NONCE


async def test_nonces_are_base64url_and_never_repeat(clock: FakeClock) -> None:
    """RFC 8555 §6.5.1."""
    nonces = BootNonces(clock)
    issued = [nonces.issue() for _ in range(1000)]
    assert len(set(issued)) == 1000
    assert all(is_base64url(nonce) for nonce in issued)


async def test_order_of_redemption_does_not_matter(clock: FakeClock) -> None:
    """Each of many is good exactly once, in any order, across windows."""
    nonces = BootNonces(clock)
    issued = []
    for _ in range(20):
        issued.append(nonces.issue())
        clock.advance(timedelta(minutes=4))
    for nonce in reversed(issued):
        assert await refusal_of(nonces, nonce) is None
    for nonce in issued:
        assert await refusal_of(nonces, nonce) is ProblemType.BAD_NONCE


async def test_nonce_of_another_boot_is_refused(clock: FakeClock) -> None:
    """A restart forgets what was spent, so it takes nothing of before."""
    before, after = BootNonces(clock), BootNonces(clock)
    nonce = before.issue()
    assert await refusal_of(after, nonce) is ProblemType.BAD_NONCE
    assert await refusal_of(before, nonce) is None


async def test_every_flipped_bit_makes_it_foreign(clock: FakeClock) -> None:
    """No part of a nonce can be changed, the index of its spent bit least of all."""
    nonces = BootNonces(clock)
    octets = parse_base64url(nonces.issue())
    for position in range(len(octets) * 8):
        forged = bytearray(octets)
        forged[position // 8] ^= 1 << position % 8
        nonce = module.encode_base64url(bytes(forged))
        assert await refusal_of(nonces, nonce) is ProblemType.BAD_NONCE


@pytest.mark.parametrize("length", [1, 39, 41, 512])
async def test_other_lengths_are_foreign(clock: FakeClock, length: int) -> None:
    """A short, long or huge nonce is refused before anything is computed from it."""
    assert await refusal_of(BootNonces(clock), "A" * length) is ProblemType.BAD_NONCE


async def test_text_outside_the_alphabet_is_malformed(clock: FakeClock) -> None:
    """RFC 8555 §6.5.1 tells the two apart."""
    assert await refusal_of(BootNonces(clock), "A" * 39 + "=") is ProblemType.MALFORMED


async def test_nonce_lives_its_time_and_not_much_longer(clock: FakeClock) -> None:
    """A slow DNS hook finds its nonce good; a nonce of yesterday is refused, even unused."""
    nonces = BootNonces(clock)
    early, late = nonces.issue(), nonces.issue()
    clock.advance(LIFETIME)
    assert await refusal_of(nonces, early) is None
    clock.advance(WINDOW_AGE)
    assert await refusal_of(nonces, late) is ProblemType.BAD_NONCE


async def test_memory_stays_bounded(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for nonces without end and spends them makes the oldest too old."""
    monkeypatch.setattr(module, "WINDOW_SIZE", 16)
    monkeypatch.setattr(module, "MAX_WINDOWS", 4)
    nonces = BootNonces(clock)
    first = nonces.issue()
    for _ in range(200):
        assert await refusal_of(nonces, nonces.issue()) is None
    assert nonces.spent_bytes <= 4 * 16 // 8
    assert await refusal_of(nonces, first) is ProblemType.BAD_NONCE


async def test_issuing_alone_fills_no_memory(clock: FakeClock) -> None:
    """Spent bits are kept for what was spent, at most 8 KiB a window."""
    nonces = BootNonces(clock)
    last = [nonces.issue() for _ in range(1000)][-1]
    assert nonces.spent_bytes == 0
    await nonces.redeem(last)
    assert nonces.spent_bytes == 125
    assert WINDOW_SIZE // 8 == 8192


async def test_clock_that_steps_back_spoils_nothing(clock: FakeClock) -> None:
    """What was issued before a correction of the clock is still good once."""
    nonces = BootNonces(clock)
    nonce = nonces.issue()
    clock.advance(timedelta(hours=-3))
    assert await refusal_of(nonces, nonces.issue()) is None
    assert await refusal_of(nonces, nonce) is None
