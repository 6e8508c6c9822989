"""The built-in CA's ledger in a dictionary."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from broker.issuance.errors import Conflict
from broker.issuance.records import CaCertificateRecord, CaRevocation


class FakeCaStore:
    """``issuance.ports.CaLedger`` without a disk."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], CaCertificateRecord] = {}
        self.closed: set[str] = set()
        """Issuers that are retired."""
        self.on_closed: Callable[[], None] = lambda: None
        """What happens meanwhile to whoever asks for one."""
        self.crl_numbers: Counter[tuple[str, str]] = Counter()
        self.crls: dict[tuple[str, str], bytes] = {}

    async def record_ca_certificate(self, record: CaCertificateRecord) -> CaCertificateRecord:
        if record.issuer_key_id in self.closed:
            self.on_closed()
            raise Conflict(f"issuer '{record.issuer_key_id}' is retired")
        return self.records.setdefault((record.ca, record.order_ref), record)

    async def find_ca_certificate(self, ca: str, order_ref: str) -> CaCertificateRecord | None:
        return self.records.get((ca, order_ref))

    async def find_ca_certificate_by_serial(
        self, ca: str, serial: str
    ) -> CaCertificateRecord | None:
        return next((r for r in self.records.values() if (r.ca, r.serial) == (ca, serial)), None)

    async def revoke_ca_certificate(
        self, ca: str, serial: str, *, at: datetime, reason: int
    ) -> bool:
        record = await self.find_ca_certificate_by_serial(ca, serial)
        if record is None or record.revoked_at is not None:
            return False
        revoked = replace(record, revoked_at=at, revocation_reason=reason)
        self.records[(ca, record.order_ref)] = revoked
        return True

    async def revoked_ca_certificates(
        self, ca: str, issuer_key_id: str, now: datetime
    ) -> Sequence[CaRevocation]:
        return [
            CaRevocation(
                serial=record.serial,
                revoked_at=record.revoked_at,
                revocation_reason=record.revocation_reason,
            )
            for record in self.records.values()
            if (record.ca, record.issuer_key_id) == (ca, issuer_key_id)
            and record.revoked_at is not None
            and record.not_after > now
        ]

    async def next_crl_number(self, ca: str, issuer_key_id: str, at: datetime) -> int:
        key = (ca, issuer_key_id)
        self.crl_numbers[key] = max(self.crl_numbers[key] + 1, int(at.timestamp()))
        return self.crl_numbers[key]

    async def keep_crl(self, ca: str, issuer_key_id: str, crl_der: bytes) -> None:
        self.crls[ca, issuer_key_id] = crl_der

    async def kept_crl(self, ca: str, issuer_key_id: str) -> bytes | None:
        return self.crls.get((ca, issuer_key_id))
