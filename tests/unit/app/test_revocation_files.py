"""Files of revocation lists: read anew when they change, and never taken for empty."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.revocation_files import MAX_FILE_BYTES, RevocationFiles
from broker.protocol.revocation_lists import RevocationUnknown
from tests.unit.protocol.test_revocation_lists import GOOD, ISSUING, LEAF, in_pem, listed


async def test_every_file_counts_and_changes_are_seen(tmp_path: Path) -> None:
    """A timer replaces them under a running broker."""
    one, two = tmp_path / "one.crl", tmp_path / "two.pem"
    one.write_bytes(GOOD[0].public_bytes(Encoding.DER))
    two.write_bytes(in_pem(*GOOD))
    files = RevocationFiles([one, two])
    first = await files.current()
    assert len(first) == 3
    assert all(a is b for a, b in zip(first, await files.current(), strict=True))
    beside = tmp_path / "new"
    beside.write_bytes(in_pem(listed(ISSUING, LEAF)))
    os.replace(beside, one)
    again = await files.current()
    serial = LEAF.serial_number
    assert again[0].loaded.get_revoked_certificate_by_serial_number(serial) is not None


async def test_a_file_that_cannot_be_read_says_nothing_of_anybody(tmp_path: Path) -> None:
    """Neither do the others beside it; once it is there they do."""
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_bytes(in_pem(*GOOD))
    files = RevocationFiles([good, bad])
    with pytest.raises(RevocationUnknown, match=r"bad\.pem cannot be read"):
        await files.current()
    bad.write_bytes(b"nothing")
    with pytest.raises(RevocationUnknown, match=r"bad\.pem"):
        await files.current()
    with bad.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(RevocationUnknown, match="past"):
        await files.current()
    bad.write_bytes(in_pem(GOOD[0]))
    assert len(await files.current()) == 3
