"""When somebody has to do something about the end of a CA's certificate."""

from datetime import timedelta

import pytest

from broker.upstreams.ageing import TIME_TO_REPLACE_ROOT, TIME_TO_ROTATE, ca_ends
from broker.upstreams.authority import Authority, IssuerSet
from tests.fakes.builtin_ca import DAY, make_world
from tests.fakes.clock import START

LONGEST = 90 * DAY
SECOND = timedelta(seconds=1)


async def test_issuer_is_told_of_a_month_before_lifetimes_are_cut() -> None:
    """Not before; and once the next one is there, what is left to do is to activate it."""
    world = await make_world(lifetime=365 * DAY)
    issuers = IssuerSet(world.issuing)
    due = START + 365 * DAY - LONGEST - TIME_TO_ROTATE
    (root, current) = ca_ends(issuers, longest=LONGEST, now=due - SECOND)
    assert (root.role, root.warning, current.role, current.warning) == (
        "root",
        None,
        "current",
        None,
    )
    assert current.not_after == START + 365 * DAY
    (_, current) = ca_ends(issuers, longest=LONGEST, now=due)
    assert current.warning is not None
    assert "issuing CA 'issuing-1' ends 2027-03-01" in current.warning
    assert "cut from 2026-12-01 on; see penstock ca rotate prepare" in current.warning
    second = IssuerSet(world.issuing, Authority("b", world.issuing.certificate))
    (_, current, following) = ca_ends(second, longest=LONGEST, now=due)
    assert current.warning is not None
    assert current.warning.endswith("see penstock ca rotate activate")
    assert (following.role, following.warning) == ("next", None)


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
async def test_root_is_told_of_a_year_before_its_end(*, early: bool) -> None:
    """Its successor has to reach every verifier."""
    world = await make_world()
    now = START + 3650 * DAY - TIME_TO_REPLACE_ROOT - (SECOND if early else timedelta(0))
    (root, _) = ca_ends(IssuerSet(world.issuing), longest=LONGEST, now=now)
    assert (root.warning is None) == early
