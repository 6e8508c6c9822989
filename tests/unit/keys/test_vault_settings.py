"""Which identity is meant at a mount."""

from pathlib import Path

from broker.keys.vault_settings import Identity, TokenSettings, VaultSettings


def by_token(text: str) -> Identity:
    """Return an identity whose token is *text*."""
    return Identity(serve=TokenSettings(read_token=text.encode, place="here"))


def test_mount_that_is_named_has_its_own_identity_and_all_others_share_one() -> None:
    """The name is what the metrics go by."""
    settings = VaultSettings(
        addresses=("https://a:8200",),
        state_dir=Path("/var"),
        identities={"": by_token("one"), "transit-ca": by_token("two")},
    )
    assert settings.identity_at("transit-ca") == ("transit-ca", settings.identities["transit-ca"])
    assert settings.identity_at("transit") == ("", settings.identities[""])


def test_no_secret_stands_in_the_settings() -> None:
    """They are shown in tracebacks."""
    assert "marked" not in repr(by_token("marked"))
