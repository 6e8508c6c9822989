"""Entries of a revocation list: the same octets that the library writes, made once."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.issuance.records import CaRevocation
from broker.upstreams.crl_encoding import REASONS, EntryCache, with_entries
from tests.fakes.clock import START

KEY = ec.generate_private_key(ec.SECP256R1())


def revocation(serial: int, *, at: datetime = START, reason: int | None = 4) -> CaRevocation:
    """Return what the ledger says of a revoked certificate."""
    return CaRevocation(serial=f"{serial:x}", revoked_at=at, revocation_reason=reason)


def by_library(*revoked: CaRevocation) -> bytes:
    """Return the TBSCertList that the library writes."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([]))
        .last_update(START)
        .next_update(START + timedelta(days=7))
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16))
        entry = entry.revocation_date(one.revoked_at.replace(microsecond=0))
        flag = REASONS[one.revocation_reason or 0]
        if flag is not None:
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(KEY, hashes.SHA256()).tbs_certlist_bytes


@given(
    st.lists(
        st.builds(
            revocation,
            st.integers(1, 2**159 - 1),
            at=st.datetimes(
                datetime(1990, 1, 1),  # noqa: DTZ001 - the strategy wants its bounds without a zone
                datetime(2090, 1, 1),  # noqa: DTZ001
                timezones=st.just(UTC),
            ),
            reason=st.sampled_from([None, *REASONS]),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda one: one.serial,
    )
)
def test_entries_are_what_the_library_writes(revoked: list[CaRevocation]) -> None:
    """Octet for octet, whatever the serial, the time and the reason."""
    entries = EntryCache().encode(revoked)
    assert with_entries(by_library(revocation(1)), entries) == by_library(*revoked)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 1300])
def test_list_of_any_length_has_its_length(count: int) -> None:
    """Short and long forms, around where one becomes the other."""
    revoked = [revocation(serial) for serial in range(1, count + 1)]
    entries = EntryCache().encode(revoked)
    assert with_entries(by_library(revocation(1)), entries) == by_library(*revoked)


def test_entry_is_encoded_once_and_forgotten_with_its_list() -> None:
    """The next list takes it as it is; one that left comes back as new."""
    cache = EntryCache()
    (first, _) = cache.encode([revocation(1), revocation(2)])
    (again,) = cache.encode([revocation(1)])
    assert again is first
    cache.encode([])
    (anew,) = cache.encode([revocation(1)])
    assert anew == first
    assert anew is not first
