"""Ids of keys in Vault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.issuance.errors import Broken
from broker.keys.vault_ids import VaultKeyId, is_vault_id, parse_vault_key_id

PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


def test_id_names_mount_key_and_version() -> None:
    """The mount may have a '/' in it."""
    made = parse_vault_key_id("vault:team/transit/penstock.default.le#12")
    assert made == VaultKeyId("team/transit", "penstock.default.le", 12)
    assert made.key == "team/transit/penstock.default.le"


@given(mount=st.lists(PART, min_size=1, max_size=3), name=PART, version=st.integers(1, 10**9 - 1))
def test_text_of_an_id_is_read_back(mount: list[str], name: str, version: int) -> None:
    """Whatever it names."""
    made = VaultKeyId("/".join(mount), name, version)
    assert parse_vault_key_id(str(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("vault:transit/key", id="no-version"),
        pytest.param("vault:transit/key#0", id="latest"),
        pytest.param("vault:transit/key#01", id="leading-zero"),
        pytest.param("vault:transit/key#-1", id="negative"),
        pytest.param("vault:key#1", id="no-mount"),
        pytest.param("vault:transit//key#1", id="empty-part"),
        pytest.param("vault:transit/../sys/key#1", id="parent"),
        pytest.param("vault:transit/key?x#1", id="query"),
        pytest.param("vault:transit/key%2f#1", id="escape"),
        pytest.param("vault:transit/ké#1", id="not-ascii"),
        pytest.param("vault:transit/key#1\n", id="line-end"),
        pytest.param("transit/key#1", id="no-scheme"),
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """Nothing that means something in a path of Vault gets into one."""
    with pytest.raises(Broken, match="is not of the form 'vault:MOUNT/NAME#VERSION'"):
        parse_vault_key_id(text)


def test_ids_of_files_are_told_apart() -> None:
    """No file's name has a ':' in it."""
    assert is_vault_id("vault:transit/key#1")
    assert is_vault_id("vault:")
    assert not is_vault_id("account-le@default")
