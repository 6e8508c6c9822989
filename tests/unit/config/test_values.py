"""The kinds of values: each reads what it should and refuses the rest in its own words."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from broker.config.values import (
    AbsolutePath,
    Address,
    CaaIdentity,
    ChainWish,
    Endpoint,
    EndpointText,
    ExternalUrl,
    HttpsUrl,
    HttpUrl,
    Network,
    OwnName,
    ResolverText,
    Secret,
    SecretRef,
)
from broker.issuance.errors import Broken
from tests.unit.config.conftest import FaultsOf


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Secret, "file:/etc/penstock/key.pass"),
        (Secret, "env:PASSPHRASE"),
        (EndpointText, "127.0.0.1:8443"),
        (EndpointText, "[::1]:8443"),
        (EndpointText, "ns.corp.example:53"),
        (ResolverText, "10.0.0.53:53"),
        (ResolverText, "[::1]:53"),
        (AbsolutePath, "/etc/penstock"),
        (Network, "10.0.0.0/8"),
        (Network, "fd00::/8"),
        (Address, "10.0.0.53"),
        (HttpsUrl, "https://ca.example/directory"),
        (HttpUrl, "http://proxy.example:3128"),
        (ExternalUrl, "https://acme.corp.example:8443/pki"),
        (CaaIdentity, "pki.corp.example"),
        (OwnName, "penstock-agents.penstock.svc"),
        (OwnName, "2001:db8::7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_value_is_read_and_written_as_it_stood(kind: Any, text: str) -> None:
    """Reading and writing meet again."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    value = adapter.validate_python(text)
    assert adapter.dump_python(value, mode="json") == text
    assert adapter.validate_python(value) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Secret, "file:relative"),
        (Secret, "env:not a name"),
        (Secret, "vault:secret/penstock"),
        (Secret, "hunter2"),
        (Secret, 12345),
        (EndpointText, "127.0.0.1"),
        (EndpointText, ":8443"),
        (EndpointText, "127.0.0.1:99999"),
        (EndpointText, "::1:8443"),
        (EndpointText, 8443),
        (ResolverText, "ns.corp.example:53"),
        (ResolverText, "10.0.0.53"),
        (AbsolutePath, "relative"),
        (AbsolutePath, "/with\0nul"),
        (Network, "10.0.0.1/8"),
        (Network, 10),
        (Address, "10.0.0.0/8"),
        (Address, "ns.corp.example"),
        (HttpsUrl, "http://ca.example/directory"),
        (HttpsUrl, "https://"),
        (HttpUrl, "http://user:password@proxy.example"),
        (HttpUrl, "http://proxy.example:port"),
        (HttpUrl, "ftp://proxy.example"),
        (ExternalUrl, "http://acme.corp.example"),
        (ExternalUrl, "https://acme.corp.example/"),
        (ExternalUrl, "https://acme.corp.example?a=b"),
        (ExternalUrl, "https://acme.corp.example#a"),
        (ExternalUrl, "https://ACME.corp.example"),
        (ExternalUrl, "https://acme.corp.example:443"),
        (ExternalUrl, "https://acme.corp.example/a/../b"),
        (CaaIdentity, "PKI.corp.example"),
        (CaaIdentity, "localhost"),
        (OwnName, "*.corp.example"),
        (OwnName, "Agents.corp.example"),
        (OwnName, "agents.corp.example:8445"),
        (OwnName, 7),
    ],
    ids=lambda value: repr(value) if isinstance(value, str | int) else "",
)
def test_other_values_are_refused(kind: Any, text: object) -> None:
    """The twin: one thing is wrong with each."""
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    "value", ["hunter2", "base64:aHVudGVyMg==", "file:hunter2", "env:hunter2!"]
)
def test_secret_that_stands_in_the_file_is_refused_unseen(faults_of: FaultsOf, value: str) -> None:
    """A fault may be pasted into a ticket; the secret must not be in it."""
    (fault,) = faults_of({"keys.passphrase": value})
    assert fault.startswith("keys.passphrase: ")
    assert "hunter2" not in fault
    assert "aHVudGVyMg" not in fault


def test_secret_is_read_from_its_file(tmp_path: Path) -> None:
    """One line break at the end is the editor's, not the secret's."""
    path = tmp_path / "key.pass"
    path.write_bytes(b"correct horse \n")
    assert SecretRef("file", str(path)).resolve() == b"correct horse "


def test_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that stands in the configuration."""
    monkeypatch.setitem(os.environ, "TEST_PASSPHRASE", "correct horse")
    assert SecretRef("env", "TEST_PASSPHRASE").resolve() == b"correct horse"


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"x" * 70_000], ids=["none", "empty", "line", "large"]
)
def test_secret_that_is_none_is_a_reason_to_stop(tmp_path: Path, content: bytes | None) -> None:
    """An empty passphrase would encrypt nothing."""
    path = tmp_path / "key.pass"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Broken, match=r"key\.pass"):
        SecretRef("file", str(path)).resolve()


def test_unset_variable_is_a_reason_to_stop() -> None:
    """No secret is no empty secret."""
    with pytest.raises(Broken, match="env:NOT_SET_ANYWHERE is not set"):
        SecretRef("env", "NOT_SET_ANYWHERE").resolve()


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [(Endpoint("::1", 53), "[::1]:53"), (Endpoint("10.0.0.1", 53), "10.0.0.1:53")],
    ids=["six", "four"],
)
def test_endpoint_is_written_with_brackets_where_needed(endpoint: Endpoint, text: str) -> None:
    """As URLs have it."""
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "read"),
    [("ISRG Root X1", "ISRG Root X1"), (":".join(["AB"] * 32), "ab" * 32)],
    ids=["a name", "a fingerprint"],
)
def test_preferred_chain_is_a_name_or_a_fingerprint(text: str, read: str) -> None:
    """In the one spelling that is compared."""
    assert TypeAdapter(ChainWish).validate_python(text) == read


@pytest.mark.parametrize("value", ["", " Root", 7], ids=["empty", "a space", "a number"])
def test_preferred_chain_that_says_nothing_is_refused(value: object) -> None:
    """When the file is read."""
    with pytest.raises(ValidationError):
        TypeAdapter(ChainWish).validate_python(value)
