"""What the built-in CAs publish, renew and warn of."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from broker.app.publishing import AuthorityPublishing
from broker.issuance.errors import Unreachable
from tests.fakes.builtin_ca import DAY, CaWorld, issue_one, make_world
from tests.fakes.clock import START
from tests.unit.config.conftest import parsed

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world() -> CaWorld:
    """A CA that has issued nothing."""
    return await make_world()


def publishing(world: CaWorld, **section: object) -> AuthorityPublishing:
    """Return what is published of *world* as ``local``."""
    document = {"kind": "built-in", "base_url": "http://pki.corp.example:8080", **section}
    config = parsed({"upstreams": {"local": document}})
    return AuthorityPublishing(config, {"local": world.ca}, world.clock)


async def test_list_is_fresh_until_the_next_is_planned(world: CaWorld) -> None:
    """And never longer than the configuration lets caches have it."""
    week = publishing(world, crl_cache="30d")
    found = await week.revocation_list("issuing-1")
    assert found is not None
    assert (found.modified_at, found.expires_at) == (START, START + 3.5 * DAY)
    assert found.fresh_for == 3.5 * DAY
    world.clock.advance(3 * DAY)
    found = await week.revocation_list("issuing-1")
    assert found is not None
    assert (found.modified_at, found.fresh_for) == (START, 0.5 * DAY)
    found = await publishing(world).revocation_list("issuing-1")
    assert found is not None
    assert found.fresh_for == 10 * MINUTE
    assert await week.revocation_list("issuing-9") is None


async def test_list_that_is_overdue_is_not_kept_by_caches(world: CaWorld) -> None:
    """None could be signed; the next one to ask may find it."""
    made = publishing(world)
    await made.revocation_list("issuing-1")
    world.clock.advance(4 * DAY)
    world.signer.is_away = True
    found = await made.revocation_list("issuing-1")
    assert found is not None
    assert found.fresh_for == timedelta(0)
    with pytest.raises(Unreachable):
        await made.renew_lists()
    world.signer.is_away = False
    await made.renew_lists()
    found = await made.revocation_list("issuing-1")
    assert found is not None
    assert found.modified_at == START + 4 * DAY


async def test_revocation_changes_what_is_published_at_once(world: CaWorld) -> None:
    """With another tag, so that whoever asks with the old one is sent the new one."""
    made = publishing(world)
    before = await made.revocation_list("issuing-1")
    await world.ca.revoke(await issue_one(world), 4)
    after = await made.revocation_list("issuing-1")
    assert before is not None
    assert after is not None
    assert before.tag != after.tag


async def test_issuer_certificate_may_be_kept_for_a_day(world: CaWorld) -> None:
    """It never changes under its URL."""
    found = await publishing(world).certificate("issuing-1")
    assert found is not None
    assert (found.body, found.fresh_for) == (world.issuing.der, DAY)
    assert await publishing(world).certificate("root") is None


async def test_ends_are_told_by_role_and_warned_of(world: CaWorld) -> None:
    """Metrics have all of them; the log those that need somebody."""
    made = publishing(world)
    assert made.end_times() == {
        ("local", "root"): START + 3650 * DAY,
        ("local", "current"): START + 365 * DAY,
    }
    with capture_logs() as logs:
        await made.warn_of_ends()
    assert logs == []
    world.clock.advance(300 * DAY)
    with capture_logs() as logs:
        await made.warn_of_ends()
    (line,) = logs
    assert (line["log_level"], line["upstream"]) == ("warning", "local")
    assert "see penstock ca rotate prepare" in line["what"]
