"""What stock clients show when no CA can be ordered from: our sentence, at once."""

import re
from pathlib import Path

import pytest

from tests.deployments.penstock import AcmeCa, Penstock
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed
from tests.peers.lego import Lego
from tests.peers.process import free_port

pytestmark = pytest.mark.peers

SENTENCE = "can be ordered from now"
"""What policy says of an upstream that is suspended, or not registered yet."""


@pytest.fixture(scope="module")
def unserved(tmp_path_factory: pytest.TempPathFactory) -> Penstock:
    """A broker whose only CA for clients was never registered at."""
    tmp = tmp_path_factory.mktemp("unserved")
    nowhere = AcmeCa(
        name="nowhere",
        directory_url=f"https://127.0.0.1:{free_port()}/directory",
        ca_bundle=tmp / "root.pem",
    )
    return Penstock(
        tmp, validation_http_port=free_port(), upstreams=[nowhere], is_registering=False
    )


def orders_asked(penstock: Penstock) -> float:
    """Return how many newOrder requests were refused."""
    pattern = r'^penstock_acme_requests_total\{code="(.)xx",operation="new-order"\} ([0-9.e+]+)$'
    found = dict(re.findall(pattern, penstock.metrics(), re.MULTILINE))
    assert (float(found["2"]), float(found["5"])) == (0, 0)
    return float(found["4"])


async def test_lego_and_certbot_show_the_reason_after_one_request(
    unserved: Penstock, tmp_path: Path
) -> None:
    """After 503 lego asked again for minutes and spoke of nonces in the end."""
    async with unserved as penstock:
        where = (penstock.directory_url, penstock.ca_bundle)
        lego, certbot = Lego(tmp_path / "lego", *where), Certbot(tmp_path / "certbot", *where)
        for number, run in enumerate((lego.run_http, certbot.certonly_standalone), start=1):
            with pytest.raises(ClientFailed) as failed:
                await run(["www.example.test"], http_port=free_port())
            assert SENTENCE in " ".join(str(failed.value).split())
            assert "badNonce" not in str(failed.value)
            assert orders_asked(penstock) == number
