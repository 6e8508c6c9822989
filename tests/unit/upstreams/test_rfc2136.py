"""Dynamic updates, as far as none is sent; the rest is shown against a name server."""

import pytest

from broker.issuance.errors import Broken
from broker.upstreams.lookup import NameServer
from broker.upstreams.rfc2136 import ALGORITHMS, DynamicZone, Rfc2136Settings

SERVER = NameServer("192.0.2.1")


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_good_settings_are_taken(algorithm: str) -> None:
    """Each algorithm that is offered can be used."""
    DynamicZone(
        Rfc2136Settings(
            server=SERVER, tsig_name="key", tsig_secret=b"secret", tsig_algorithm=algorithm
        )
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"tsig_algorithm": "hmac-md5"}, "'hmac-md5' is not used", id="md5"),
        pytest.param({"tsig_secret": b""}, "TSIG key 'key' is empty", id="no-secret"),
        pytest.param({"tsig_name": "a..b"}, "TSIG key name 'a..b' is no DNS name", id="key-name"),
        pytest.param({"zone": "a" * 64}, "zone 'aaa.*' is no DNS name", id="zone"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(changes: dict[str, object], words: str) -> None:
    """Not when the first certificate is due."""
    members = {"server": SERVER, "tsig_name": "key", "tsig_secret": b"secret"} | changes
    with pytest.raises(Broken, match=words):
        DynamicZone(Rfc2136Settings(**members))  # type: ignore[arg-type]


def test_the_secret_is_not_shown() -> None:
    """Settings are printed when something is wrong with them."""
    settings = Rfc2136Settings(server=SERVER, tsig_name="key", tsig_secret=b"hush")
    assert "hush" not in repr(settings)
