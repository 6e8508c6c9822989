"""The ledger itself: it finds what must never be, and nothing where all is well."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.deployments.ledger import (
    Delivered,
    Kept,
    KeptCertificate,
    KeptOrder,
    KeptWork,
    LocalIssue,
    check_ledger,
    check_local_ledger,
)
from tests.fakes.hostile_ca import Ledger
from tests.fakes.hostile_ca.ledger import Certified, Finalized, Ordered

CSR, CERTIFICATE, NAMES = "c5" * 32, "fe" * 32, ("a.example.test",)
DELIVERED = Delivered(CSR, CERTIFICATE)
ISSUED = Certified("u1", "01", CERTIFICATE, CSR, NAMES, "2027-01-01T00:00:00Z")
KEPT_CERTIFICATE = KeptCertificate("o1", CERTIFICATE, is_released=True)
KEPT = Kept(
    orders=(KeptOrder("o1", "valid", CSR, NAMES),),
    certificates=(KEPT_CERTIFICATE,),
    work=(KeptWork("w1", "https://ca.test/order/u1", "o1", "spent"),),
    issued_here=(LocalIssue("w1", CERTIFICATE),),
)


def at_the_ca() -> Ledger:
    """Return what an honest CA has done for the one order."""
    return Ledger(
        orders=[Ordered("u1", "a1", NAMES, None, None)],
        finalizes=[Finalized("u1", CSR)],
        certificates=[ISSUED],
    )


def ordered_again(ca: Ledger, order_id: str) -> None:
    """Have the CA make another order for the same names."""
    ca.orders.append(Ordered(order_id, "a1", NAMES, None, None))


def finalized_twice(ca: Ledger, kept: Kept) -> Kept:
    """Two upstream orders were finalized for one of ours."""
    ordered_again(ca, "u2")
    ca.finalizes.append(Finalized("u2", CSR))
    return replace(
        kept, work=(*kept.work, KeptWork("w2", "https://ca.test/order/u2", None, "dead"))
    )


def issued_twice(ca: Ledger, kept: Kept) -> Kept:
    """One upstream order gave two certificates."""
    ca.certificates.append(replace(ISSUED, serial_hex="02", fingerprint="ab" * 32))
    return kept


def lost(ca: Ledger, kept: Kept) -> Kept:
    """The broker does not know the certificate."""
    return replace(kept, certificates=())


def withheld(ca: Ledger, kept: Kept) -> Kept:
    """The broker keeps the certificate back, and delivered one nevertheless."""
    return replace(kept, certificates=(replace(KEPT_CERTIFICATE, is_released=False),))


def stuck(ca: Ledger, kept: Kept) -> Kept:
    """The order never ended."""
    return replace(kept, orders=(KeptOrder("o1", "processing", CSR, NAMES),))


def anothers(ca: Ledger, kept: Kept) -> Kept:
    """The certificate is kept for an order with another CSR."""
    return replace(kept, orders=(KeptOrder("o1", "valid", "00" * 32, NAMES),))


def uncounted(ca: Ledger, kept: Kept) -> Kept:
    """The CA has an order that the broker neither knows nor has counted."""
    ordered_again(ca, "u2")
    return kept


def unknown_and_finalized(ca: Ledger, kept: Kept) -> Kept:
    """An order was counted as lost, and finalized all the same."""
    return replace(kept, work=(), events=Counter({"upstream-order-lost": 1}))


def left_over_twice(ca: Ledger, kept: Kept) -> Kept:
    """Two orders for the same names were opened and never finalized."""
    ordered_again(ca, "u2")
    ordered_again(ca, "u3")
    return replace(kept, events=Counter({"upstream-order-lost": 2}))


def shared(ca: Ledger, kept: Kept) -> Kept:
    """One of our orders has two upstream halves."""
    return replace(kept, work=(*kept.work, KeptWork("w2", None, "o1", "intended")))


Change = Callable[[Ledger, Kept], Kept]

WRONG: dict[Change, str] = {
    finalized_twice: "2 finalizes accepted for the CSR",
    issued_twice: "2 certificates issued for the CSR",
    lost: "is lost",
    withheld: "belongs to",
    stuck: "is processing",
    anothers: "is kept for another order",
    uncounted: "unknown to the broker, which counted 0",
    unknown_and_finalized: "was finalized and is unknown",
    left_over_twice: "2 upstream orders for",
    shared: "2 upstream halves",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_ledger_finds_what_must_never_be(change: Change) -> None:
    """Each thing that is promised never to happen is found when it has happened."""
    ca = at_the_ca()
    kept = change(ca, KEPT)
    findings = check_ledger(ca, kept, [DELIVERED])
    assert any(WRONG[change] in each for each in findings), findings


def test_ledger_finds_another_certificate_than_the_issued_one() -> None:
    """A client that holds a certificate which the CA did not issue for its CSR is found."""
    findings = check_ledger(at_the_ca(), KEPT, [replace(DELIVERED, fingerprint="00" * 32)])
    assert any("delivered" in each for each in findings)


def test_ledger_finds_nothing_where_all_is_well() -> None:
    """One order, one finalize, one certificate, delivered; and one order lost and counted."""
    ca = at_the_ca()
    assert check_ledger(ca, KEPT, [DELIVERED]) == []
    ordered_again(ca, "u2")
    counted = replace(KEPT, events=Counter({"upstream-order-lost": 1}))
    assert check_ledger(ca, counted, [DELIVERED]) == []


@pytest.mark.parametrize(
    ("issued", "sentence"),
    [
        pytest.param(
            (*KEPT.issued_here, LocalIssue("w1", "ab" * 32)), "2 certificates", id="twice"
        ),
        pytest.param((LocalIssue("w1", "ab" * 32),), "is unknown to the broker", id="lost"),
        pytest.param((), "is none of the built-in CA's", id="from nowhere"),
    ],
)
def test_local_ledger_finds_what_must_never_be(
    issued: tuple[LocalIssue, ...], sentence: str
) -> None:
    """The same for the CA whose record is a table of the broker's own."""
    assert check_local_ledger(KEPT, [DELIVERED]) == []
    findings = check_local_ledger(replace(KEPT, issued_here=issued), [DELIVERED])
    assert any(sentence in each for each in findings), findings
