"""Secrets by reference."""

from pathlib import Path

import pytest

from agents.references import MAX_SECRET_BYTES, ReferenceFault, read_reference


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """A projected token is replaced in its file every hour."""
    file = tmp_path / "token"
    file.write_text("first\n")
    assert read_reference(f"file:{file}") == "first"
    file.write_text("second\n")
    assert read_reference(f"file:{file}") == "second"


def test_a_bare_file_name_lies_where_systemd_puts_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadCredential= names a folder in the environment."""
    (tmp_path / "join").write_text("token")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_reference("file:join") == "token"


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """``env:NAME`` is its value."""
    monkeypatch.setenv("JOIN", " token ")
    assert read_reference("env:JOIN") == "token"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env:NOT_THERE", "not there"),
        ("file:/not/there", "cannot be read"),
        ("file:bare", "no CREDENTIALS_DIRECTORY"),
        ("vault:secret", "begins neither"),
    ],
    ids=["no-variable", "no-file", "no-folder", "another-scheme"],
)
def test_what_is_not_there_is_named(
    reference: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the reference."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ReferenceFault, match=said):
        read_reference(reference)


def test_an_error_never_tells_what_was_read(tmp_path: Path) -> None:
    """A file that is too long, or no text, is not quoted."""
    file = tmp_path / "token"
    for octets in (b"s3cret" * MAX_SECRET_BYTES, b"s3cret\xff"):
        file.write_bytes(octets)
        with pytest.raises(ReferenceFault) as raised:
            read_reference(f"file:{file}")
        assert "s3cret" not in str(raised.value)
