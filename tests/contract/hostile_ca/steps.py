"""Steps that the tests of the hostile CA share."""

import dataclasses
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.acme_client import AcmeClient, Answer, make_csr
from tests.fakes.hostile_ca import Behaviour, HostileCa

NAME = "one.example.test"
READY = Behaviour(authorizations_valid=True)
"""An honest CA that trusts its client: most switches are about what comes later."""


def behave(ca: HostileCa, **changes: Any) -> None:
    """Change the standing behaviour."""
    ca.script.standing = dataclasses.replace(READY, **changes)


async def obtain(
    client: AcmeClient,
    *names: str,
    key: ec.EllipticCurvePrivateKey | None = None,
    **members: Any,
) -> Answer:
    """Order, finalize and download; return the last answer."""
    wanted = names or (NAME,)
    order = (await client.order(*wanted, **members)).json()
    final = await client.finalize(order, make_csr(wanted, key))
    assert final.status == 200, final.body
    return await client.post(final.json()["certificate"])


async def leaf_of(client: AcmeClient, *names: str, **members: Any) -> x509.Certificate:
    """Obtain a certificate and return it without its chain."""
    answer = await obtain(client, *names, **members)
    return x509.load_pem_x509_certificates(answer.body)[0]
