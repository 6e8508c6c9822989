"""What a renewed certificate has less of than the one before."""

import pytest

from broker.policy.comparison import compare_renewed, top_of
from broker.policy.form import Loss
from broker.protocol.certificates import Chain
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.parsed_certificate import ParsedCertificate
from tests.fakes.clock import START

ALL = frozenset(Loss)
SERVER, CLIENT = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"


def chain(**changes: object) -> Chain:
    """Return a chain of one certificate as its parts say."""
    names = changes.pop("names", ("a.example.com", "b.example.com"))
    assert isinstance(names, tuple)
    given: dict[str, object] = {
        "der": b"", "fingerprint": "", "serial": "01", "not_before": START, "not_after": START,
        "issuer": "CN=Root", "subject": "", "common_name": None,
        "identifiers": frozenset(Identifier(IdentifierType.DNS, one) for one in names),
        "other_names": (), "spki_der": b"", "key_kind": "ec-p256", "is_ca": False,
        "path_length": None, "key_usages": frozenset({"digitalSignature"}),
        "extended_key_usages": frozenset({SERVER, CLIENT}), "authority_key_id": None,
        "subject_key_id": None, "extension_oids": frozenset(), "critical_oids": frozenset(),
        **changes,
    }  # fmt: skip
    return Chain(ParsedCertificate(**given), (), b"")  # type: ignore[arg-type]


CASES: dict[str, tuple[dict[str, object], dict[str, object], list[Loss]]] = {
    "same": ({}, {}, []),
    "name-more": ({}, {"names": ("a.example.com", "b.example.com", "c.example.com")}, []),
    "name-less": ({}, {"names": ("a.example.com",)}, [Loss.NAMES]),
    "client-auth-lost": ({}, {"extended_key_usages": frozenset({SERVER})}, [Loss.USAGES]),
    "client-auth-won": ({"extended_key_usages": frozenset({SERVER})}, {}, []),
    "any-usage-lost": ({"extended_key_usages": frozenset()}, {}, [Loss.USAGES]),
    "any-usage-won": ({}, {"extended_key_usages": frozenset()}, []),
    "key-usage-lost": ({}, {"key_usages": frozenset({"keyAgreement"})}, [Loss.USAGES]),
    "key-weaker": ({"key_kind": "rsa-4096"}, {"key_kind": "rsa-2048"}, [Loss.KEY]),
    "key-stronger": ({"key_kind": "rsa-2048"}, {"key_kind": "rsa-4096"}, []),
    "key-of-another-kind": ({"key_kind": "rsa-2048"}, {"key_kind": "ec-p256"}, [Loss.KEY]),
    "other-anchors": ({}, {"issuer": "CN=Other"}, [Loss.ANCHORS]),
    "much-at-once": (
        {},
        {"names": ("x.example.com",), "issuer": "CN=Other", "key_kind": "rsa-2048"},
        [Loss.NAMES, Loss.KEY, Loss.ANCHORS],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_are_found_and_gains_are_none(case: str) -> None:
    """Each kind, and its opposite."""
    before, after, expected = CASES[case]
    assert [lost.kind for lost in compare_renewed(chain(**before), chain(**after), ALL)] == expected


def test_words_name_what_was_lost() -> None:
    """A person decides by them."""
    (lost,) = compare_renewed(chain(), chain(extended_key_usages=frozenset({SERVER})), ALL)
    assert lost.sentence == "usages are missing: clientAuth"


def test_kinds_that_policy_does_not_hold_for_are_left_out() -> None:
    """Where a list is shorter, the rest passes."""
    other = chain(names=("x.example.com",), issuer="CN=Other")
    found = compare_renewed(chain(), other, frozenset({Loss.ANCHORS}))
    assert [lost.kind for lost in found] == [Loss.ANCHORS]


def test_intermediates_may_change_below_one_top() -> None:
    """A public CA issues from another one each time."""
    one = Chain(chain(issuer="CN=R10").leaf, (chain(issuer="CN=Root", subject="CN=R10").leaf,), b"")
    two = Chain(chain(issuer="CN=R11").leaf, (chain(issuer="CN=Root", subject="CN=R11").leaf,), b"")
    assert top_of(one) == top_of(two) == "CN=Root"
    assert compare_renewed(one, two, ALL) == ()
