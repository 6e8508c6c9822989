"""What a built-in CA consists of, and how its issuers follow each other."""

from dataclasses import replace

import pytest
from cryptography import x509

from broker.issuance.errors import Broken
from broker.issuance.records import CaMember, CaRole
from broker.upstreams.authority import Authority
from broker.upstreams.authority_state import (
    activated,
    issuing_title,
    member_of,
    offline_root,
    read_state,
    retired,
    without,
)
from tests.fakes.builtin_ca import DAY, make_world
from tests.fakes.clock import START


async def rows() -> list[CaMember]:
    """Return the rows of a root and an issuer in each role, the same certificate in all."""
    world = await make_world()
    root = member_of("local", CaRole.ROOT, world.root, START)
    others = [
        member_of("local", role, Authority(role.value, world.issuing.certificate), START)
        for role in (CaRole.PAST, CaRole.CURRENT, CaRole.NEXT, CaRole.RETIRING)
    ]
    done = replace(others[0], role=CaRole.RETIRED, key_id="retired", last_crl_der=b"list")
    planned = CaMember(
        ca="local",
        role=CaRole.PLANNED,
        key_id="planned",
        subject="",
        certificate_der=None,
        since=START,
    )
    return [root, *others, done, planned]


async def test_each_member_is_where_its_role_puts_it() -> None:
    """A retiring one still signs its list until the last is there; a planned one is nothing yet."""
    members = await rows()
    state = read_state(members)
    assert state is not None
    assert state.root_authority is not None
    assert state.root_authority.key_id == "root"
    issuers = state.issuers
    assert issuers is not None
    assert [one.key_id for one in issuers] == ["current", "next", "past", "retiring"]
    assert [one.authority.key_id for one in issuers.retired] == ["retired"]
    assert all(one.parent == state.root for one in issuers)
    members[4] = replace(members[4], last_crl_der=b"last")
    state = read_state(members)
    assert state is not None
    assert state.issuers is not None
    assert state.issuers.find("retiring") is None
    assert state.issuers.find_retired("retiring") is not None
    assert read_state([members[-1]]) is None
    assert read_state([]) is None


async def test_activation_moves_two_roles_and_nothing_else() -> None:
    """Next becomes current and current past, from that moment on."""
    members = await rows()
    later = START + DAY
    made = activated(members, later)
    roles = {one.key_id: (one.role, one.since) for one in made}
    assert roles["next"] == (CaRole.CURRENT, later)
    assert roles["current"] == (CaRole.PAST, later)
    assert [one for one in made if one.since == START] == [
        one for one in members if one.key_id not in ("next", "current")
    ]
    with pytest.raises(Broken, match="no next issuing CA is prepared"):
        activated(without(members, CaRole.NEXT), later)


async def test_only_a_retiring_issuer_is_retired() -> None:
    """By its key; a current one of that name stays what it is."""
    members = await rows()
    made = {one.key_id: one.role for one in retired(members, "retiring", at=START)}
    assert made["retiring"] is CaRole.RETIRED
    assert retired(members, "current", at=START) == tuple(members)


async def test_row_that_does_not_hold_a_certificate_is_refused() -> None:
    """Somebody else wrote into the store."""
    members = await rows()
    members[2] = replace(members[2], certificate_der=b"nothing")
    with pytest.raises(Broken, match="does not parse, restore the store from a backup"):
        read_state(members)
    with pytest.raises(Broken, match="without a key or without a root"):
        read_state((await rows())[1:])


async def test_offline_root_has_no_key_here() -> None:
    """So nothing can be signed with it."""
    world = await make_world()
    state = read_state([offline_root("local", world.root.certificate, START)])
    assert state is not None
    assert state.root == world.root.certificate
    assert state.root_authority is None
    assert state.issuers is None


@pytest.mark.parametrize(
    ("current", "taken", "expected"),
    [
        ("CN=Corp issuing 1", [], "CN=Corp issuing 2"),
        ("CN=Corp issuing 9,O=Corp", [], "CN=Corp issuing 10,O=Corp"),
        ("CN=Corp issuing", [], "CN=Corp issuing 2"),
        ("CN=Corp issuing 1", ["CN=Corp issuing 2"], "CN=Corp issuing 3"),
        ("CN=2026", [], "CN=2027"),
    ],
    ids=["next", "carries", "first-number", "taken", "all-number"],
)
def test_next_issuer_is_called_by_the_next_number(
    current: str, taken: list[str], expected: str
) -> None:
    """Whatever else the name has in it stays."""
    name = x509.Name.from_rfc4514_string(current)
    assert issuing_title(name, taken) == expected
