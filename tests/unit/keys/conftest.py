"""What holds for the tests of the key room."""

import pytest

from broker.keys import encryption


@pytest.fixture(autouse=True)
def _cheap_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch passphrases only a little: how long a guess takes is shown in one test alone."""
    monkeypatch.setattr(encryption, "SCRYPT_COST", 2)
    monkeypatch.setattr(encryption, "SCRYPT_PARALLELISM", 1)
