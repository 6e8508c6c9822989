"""What was issued beside what is served: both as they really are, so that one too many is seen.

The built-in CA's ledger is read in the broker's pod, past the broker: it has all that was signed,
whatever became of it afterwards.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import living
from tests.kubernetes.release import NAME, NAMESPACE, Release

PYTHON: Final = "/opt/penstock/bin/python"
"""Python in the broker's image."""

LEDGER: Final = """\
import base64, json, sqlite3
store = sqlite3.connect("file:/var/lib/penstock/penstock.db?mode=ro", uri=True)
rows = store.execute(
    "SELECT c.certificate_der, o.order_id, o.csr_sha256 FROM ca_certificates c"
    " LEFT JOIN work w ON w.work_id = c.order_ref"
    " LEFT JOIN orders o ON o.order_id = w.taken_by"
)
print(json.dumps([[base64.b64encode(der).decode(), order, csr] for der, order, csr in rows]))
"""
"""What the CA signed, and for which order and CSR of a requester, if for any."""

LOOK: Final = """\
import base64, json, socket, ssl, sys
asked = json.load(sys.stdin)
context = ssl.create_default_context(cadata=asked["roots"])
found = []
for address in asked["addresses"]:
    with socket.create_connection((address, 8443), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname=asked["name"]) as tls:
            found.append(base64.b64encode(tls.getpeercert(True)).decode())
print(json.dumps(found))
"""
"""A TLS client that verifies, for one pod after the other."""


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate that the built-in CA signed."""

    serial: int
    order: str | None
    """The order that it was signed for; None: for none that the broker knows."""

    csr: str | None
    """Digest of the CSR that this order was finalized with."""


def issued_for(release: Release, name: str) -> list[Issued]:
    """Return every certificate that the built-in CA has signed for *name*."""
    return issued(release, lambda found: found == name)


def issued(release: Release, is_asked: Callable[[str], bool]) -> list[Issued]:
    """Return every certificate that the built-in CA has signed with a name that is asked for."""
    command = ("exec", f"{NAME}-0", "-n", NAMESPACE, "-c", "broker", "--", PYTHON, "-c", LEDGER)
    found = []
    for der, order, csr in json.loads(release.cluster.kubectl(*command)):
        certificate = x509.load_der_x509_certificate(base64.b64decode(der))
        if any(map(is_asked, _names(certificate))):
            found.append(Issued(certificate.serial_number, order, csr))
    return found


def _names(certificate: x509.Certificate) -> Sequence[str]:
    try:
        told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:  # the CA's own
        return ()
    return told.value.get_values_for_type(x509.DNSName)


def twice(those: Sequence[Issued]) -> list[Issued]:
    """Return certificates that share their order or their CSR with another, or have none."""
    orders = [one.order for one in those]
    csrs = [one.csr for one in those]
    return [
        one
        for one in those
        if one.order is None
        or one.csr is None
        or orders.count(one.order) > 1
        or csrs.count(one.csr) > 1
    ]


def served_by_each(release: Release, app: str, where: str) -> list[int]:
    """Return the serial number of what each pod of an application serves, after it verified.

    Raises:
        ClusterFailed: One of them does not serve, or what it serves does not verify.
    """
    cluster = release.cluster
    asked: dict[str, Any] = {"roots": release.trust(), "name": f"{app}.{where}.svc"}
    asked["addresses"] = [_address(cluster, one) for one in living(cluster, app, where)]
    told = json.loads(cluster.run(["python3", "-c", LOOK], text=json.dumps(asked)))
    found = (x509.load_der_x509_certificate(base64.b64decode(one)) for one in told)
    return [one.serial_number for one in found]


def _address(cluster: Cluster, pod: Any) -> str:
    address: str | None = pod["status"].get("podIP")
    if address is None:
        story = cluster.story(pod["metadata"]["namespace"])
        raise ClusterFailed(f"pod {pod['metadata']['name']} has no address\n{story}")
    return address
