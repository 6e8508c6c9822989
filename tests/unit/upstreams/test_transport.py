"""The connection to a CA, as far as none is made; the rest is shown against a server."""

from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.protocol.reading import directory_request
from broker.upstreams.transport import HttpTransport, TransportSettings

REQUEST = directory_request("https://ca.example/directory")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        pytest.param("ca_bundle", "CA bundle .*file.pem cannot be used", id="bundle"),
        pytest.param(
            "client_certificate", "client certificate .*file.pem cannot be used", id="client"
        ),
    ],
)
@pytest.mark.parametrize("content", [None, "not PEM"], ids=["missing", "nonsense"])
async def test_tls_files_that_cannot_be_used_are_told(
    tmp_path: Path, member: str, words: str, content: str | None
) -> None:
    """A bundle that cannot be read is no reason to trust the system's roots."""
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    settings = TransportSettings(user_agent="penstock/1", **{member: path})  # type: ignore[arg-type]
    transport = HttpTransport(settings)
    with pytest.raises(Broken, match=words):
        await transport.send(REQUEST)
    await transport.close()


def test_secrets_are_not_shown() -> None:
    """A proxy's password stands in its URL."""
    settings = TransportSettings(
        user_agent="penstock/1",
        proxy="http://user:hush@proxy.example:3128",
        client_key_passphrase=b"hush",
    )
    assert "hush" not in repr(settings)


async def test_closing_what_was_never_opened_is_no_error() -> None:
    """A broker that starts and stops sends nothing to any CA."""
    await HttpTransport(TransportSettings(user_agent="penstock/1")).close()
