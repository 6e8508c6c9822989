"""One agent for a host of many organisations, each with an owner of its own."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from tests.contract.agents.whole_host import build, measure, owner_of

pytestmark = pytest.mark.peers

COUNT, ORGANISATIONS = 200, 40
"""How many certificates for how many organisations; what 5,000 for 1,000 take stands in
docs/benchmarks.md."""

LARGEST_MIB = 64
"""What the process may hold with all of it, in MiB; it takes 20 with nothing."""


def test_every_certificate_lies_with_its_own_owner(tmp_path: Path) -> None:
    """Each pair loads and belongs to its organisation alone; memory is bounded."""
    config, pairs = build(tmp_path.resolve(), COUNT, ORGANISATIONS)
    figures = measure(config, pairs)
    assert figures["resident_mib"] < LARGEST_MIB
    found = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert len(found) == COUNT
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for number in range(COUNT):
        owner = owner_of(number, ORGANISATIONS)
        folder = tmp_path / "tls" / f"org-{owner}" / f"site-{number}"
        status = (folder / "privkey.pem").stat()
        assert (status.st_uid, status.st_mode & 0o777) == (owner, 0o600)
        assert (folder / "fullchain.pem").read_text() == found[number]["chain_pem"]
        context.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
