"""Where a chain leads, by name and by fingerprint."""

import pytest

from broker.protocol.certificates import parse_chain
from broker.protocol.chain_choice import is_wanted, parse_chain_wish
from tests.unit.protocol.chains import Family


@pytest.fixture(scope="module")
def family() -> Family:
    """A leaf, its issuer, and two roots that certified the issuer."""
    return Family()


@pytest.mark.parametrize("root", ["Old Root", "New Root"])
def test_chain_leads_to_the_issuer_that_its_topmost_names(family: Family, root: str) -> None:
    """As certbot and lego read it: not the subject of any certificate in it."""
    chain = parse_chain(family.pem(root))
    assert is_wanted(chain, root)
    assert not is_wanted(chain, "Issuing CA")
    assert not is_wanted(chain, "Other Root")


def test_name_is_compared_as_a_whole(family: Family) -> None:
    """Part of a name is another name."""
    chain = parse_chain(family.pem("New Root"))
    assert not is_wanted(chain, "Root")
    assert not is_wanted(chain, "new root")


def test_root_is_found_by_its_fingerprint_among_the_anchors(family: Family) -> None:
    """A root is seldom part of a chain; of one that is no anchor nothing is known."""
    chain = parse_chain(family.pem("New Root"))
    anchors = [family.der("Old Root"), family.der("New Root")]
    assert is_wanted(chain, family.fingerprint("New Root"), anchors)
    assert not is_wanted(chain, family.fingerprint("Old Root"), anchors)
    assert not is_wanted(chain, family.fingerprint("New Root"))


def test_topmost_certificate_is_found_by_its_own_fingerprint(family: Family) -> None:
    """The leaf is not, though a chain may be of it alone."""
    chain = parse_chain(family.pem("New Root"))
    assert is_wanted(chain, chain.issuers[-1].fingerprint)
    assert not is_wanted(chain, chain.leaf.fingerprint)
    alone = parse_chain(family.leaf_pem)
    assert not is_wanted(alone, alone.leaf.fingerprint)
    assert is_wanted(alone, "Issuing CA")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ISRG Root X1", "ISRG Root X1", id="a name"),
        pytest.param("AB" * 32, "ab" * 32, id="a fingerprint"),
        pytest.param(":".join(["AB"] * 32), "ab" * 32, id="with colons"),
        pytest.param("ab" * 20, "ab" * 20, id="hex of another length is a name"),
    ],
)
def test_wish_has_one_spelling(text: str, expected: str) -> None:
    """So that comparing is enough."""
    assert parse_chain_wish(text) == expected


@pytest.mark.parametrize("text", ["", " ", " Root", "Root ", "x" * 257])
def test_wish_that_says_nothing_is_refused(text: str) -> None:
    """At the start and not at the first order."""
    with pytest.raises(ValueError, match="expected the common name"):
        parse_chain_wish(text)
