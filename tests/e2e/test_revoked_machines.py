"""Hosts that enrol by a client certificate at a real broker, where revocation lists are named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.nodes import PlainAgent
from tests.e2e.vouching import CLIENT, pki, real_now, showing
from tests.unit.protocol.builders import Authority

pytestmark = pytest.mark.e2e

GOOD = "web-21.hosts.corp.example"
BAD = "web-22.hosts.corp.example"

HOUR = timedelta(hours=1)


def new_key() -> Any:
    """Return a key of its own."""
    return ec.generate_private_key(ec.SECP256R1())


def revoking(issuer: Authority, life: timedelta, *revoked: x509.Certificate) -> bytes:
    """Return a revocation list that ends after *life*."""
    now = real_now()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - HOUR)
        .next_update(now + life)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_revoked_machine_enrols_no_node(tmp_path: Path) -> None:
    """Nor does any while the list has ended or is gone; one that is put in place counts at once."""
    root = Authority.root("Machines", key=new_key(), **pki())
    issuing = root.intermediate("Machines 1", key=new_key(), **pki())
    machines = {}
    for name in (GOOD, BAD):
        key = new_key()
        machines[name] = issuing.leaf(name, key=key, extensions=CLIENT, **pki()), key
    crl, anchors = tmp_path / "machines.crl", tmp_path / "machines.pem"
    anchors.write_bytes(root.pem)

    def publish(life: timedelta) -> None:
        beside = tmp_path / "beside"
        lists = revoking(issuing, life, machines[BAD][0]) + revoking(root, life)
        beside.write_bytes(lists)
        beside.rename(crl)

    agents = {
        "client_anchors": str(anchors),
        "client_revocation_lists": [str(crl)],
        "client_certificates": [{"names": ["*.hosts.corp.example"]}],
    }
    publish(HOUR)
    with TrustingPenstock(tmp_path / "broker", agents=agents) as broker:

        def enrol(name: str) -> int:
            agent = PlainAgent(broker.agents_url, broker.ca_bundle, tmp_path, name)
            leaf, key = machines[name]
            return showing(agent, leaf, key, issuing).enrol(method="certificate")[0]

        assert enrol(BAD) == 403
        assert "was revoked on" in broker.log_text()
        publish(timedelta(seconds=-1))
        assert enrol(GOOD) == 403
        assert "no current revocation list" in broker.log_text()
        crl.unlink()
        assert enrol(GOOD) == 403
        publish(HOUR)
        assert [enrol(GOOD), enrol(BAD)] == [200, 403]
