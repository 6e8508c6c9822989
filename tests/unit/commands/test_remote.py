"""Brokers elsewhere: what names one, what is shown to it, and what is never shown to others."""

from pathlib import Path
from typing import Any

import pytest

from broker.commands.failures import CommandFailed
from broker.commands.remote import Server, _read_token, ask_server, choose, chosen, parse_server
from tests.unit.commands.conftest import Run

URL = "https://acme.corp.example:8446"
PAIR: dict[str, Any] = {"certificate": Path("c.pem"), "key": Path("k.pem")}
NOTHING: dict[str, Any] = {"certificate": None, "key": None, "anchors": None, "token": None}


def server(url: str = URL, **changes: Any) -> Server:
    """Return the server of these options."""
    return parse_server(url, **{**NOTHING, **PAIR, **changes})


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        (URL, URL),
        ("https://acme.corp.example", "https://acme.corp.example:443"),
        ("https://[::1]:8446", "https://[::1]:8446"),
        ("https://acme.corp.example:8446/penstock/", f"{URL}/penstock"),
    ],
    ids=["port", "default", "address", "path"],
)
def test_server_is_a_url(url: str, whole: str) -> None:
    """With a port, or 443, and perhaps a path."""
    assert server(url).url == whole


@pytest.mark.parametrize(
    "url",
    ["http://acme.corp.example", "acme.corp.example", "https://", "https://a.example:99999",
     "https://a.example:0", "https://a.example?x=1", "https://jane@a.example"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    """Nothing is shown to whoever is there."""
    with pytest.raises(CommandFailed) as caught:
        server(url)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": None}, "go together"),
        ({"certificate": None}, "go together"),
        ({"certificate": None, "key": None}, "nothing says who you are"),
    ],
    ids=["no-key", "no-certificate", "nothing"],
)
def test_who_asks_has_to_be_said(changes: dict[str, Any], words: str) -> None:
    """By a pair or a token."""
    with pytest.raises(CommandFailed, match=words):
        server(**changes)
    assert server(certificate=None, key=None, token="env:TOKEN").token == "env:TOKEN"


def test_token_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file or in a variable."""
    path = tmp_path / "token"
    path.write_text("a.b.c\n", "ascii")
    assert _read_token(f"file:{path}") == "a.b.c"
    monkeypatch.setenv("MY_TOKEN", "d.e.f")
    assert _read_token("env:MY_TOKEN") == "d.e.f"


@pytest.mark.parametrize(
    "reference", ["eyJhbGciOi.secret.sig", "file:/nowhere/token", "env:NOT_THERE", "file:", ""]
)
def test_what_is_no_reference_is_not_repeated(reference: str) -> None:
    """It may be the token itself."""
    with pytest.raises(CommandFailed) as caught:
        _read_token(reference)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


def test_files_that_are_not_there_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    """The command line is wrong then, and nothing was tried."""
    asked = server(certificate=tmp_path / "no.pem", key=tmp_path / "no.key")
    with pytest.raises(CommandFailed, match="cannot be used") as caught:
        ask_server(asked, "status", {}, None, 5)
    assert caught.value.exit_code == 2


def test_commands_go_to_the_server_that_was_named_and_only_then(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is not even read: it is on another machine."""
    asked: list[tuple[str, Any, str | None]] = []

    def ask(where: Server, command: str, given: Any, reason: str | None, seconds: float) -> Any:
        assert where.url == URL
        asked.append((command, dict(given), reason))
        return {"account": "a1"}

    monkeypatch.setattr("broker.commands.connection.ask_server", ask)
    monkeypatch.setenv("PENSTOCK_SERVER", URL)
    monkeypatch.setenv("PENSTOCK_TOKEN", "env:MY_TOKEN")
    status, out, err = run("account", "deactivate", "a1", "--reason", "left", "--json")
    assert (status, err) == (0, "")
    assert '"account": "a1"' in out
    assert asked == [("account_deactivate", {"account_id": "a1"}, "left")]
    monkeypatch.delenv("PENSTOCK_SERVER")
    run("account", "list")
    assert chosen() is None


@pytest.fixture(autouse=True)
def _nothing_chosen() -> Any:
    """Leave no server behind for other tests."""
    yield
    choose(None)
