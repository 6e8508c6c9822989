"""The section about Vault."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.config.vault import SERVICE_ACCOUNT_TOKEN, AppRoleLogin, KubernetesLogin, TokenLogin
from tests.unit.config.conftest import FaultsOf, Parse

TOKEN = {"method": "token", "token": "file:/run/vault-token"}
SMALLEST: dict[str, Any] = {"addresses": ["https://vault.corp.example:8200"], "serve": TOKEN}


def test_there_is_none_unless_it_is_configured(parse: Parse) -> None:
    """Keys lie in files then."""
    assert parse({}).vault is None


def test_smallest_section_has_harmless_defaults(parse: Parse) -> None:
    """Nothing is made or rotated by the broker, and no request waits for long."""
    vault = parse({"vault": SMALLEST}).vault
    assert vault is not None
    assert isinstance(vault.serve, TokenLogin)
    assert vault.rotate is None
    assert vault.timeout == timedelta(seconds=5)
    assert (vault.namespace, vault.ca_bundle, vault.sealing_key) == (None, None, None)
    assert vault.key_prefix == "penstock"
    assert not vault.mounts


def test_secret_ids_come_wrapped_unless_it_is_said_otherwise(parse: Parse) -> None:
    """Whoever delivers them plain has to say so."""
    login = {"method": "approle", "role_id": "file:/r", "secret_id": "file:/s"}
    vault = parse({"vault": {**SMALLEST, "serve": login}}).vault
    assert vault is not None
    assert isinstance(vault.serve, AppRoleLogin)
    assert vault.serve.is_wrapped
    assert vault.serve.mount == "approle"


def test_projected_token_lies_where_the_chart_puts_it(parse: Parse) -> None:
    """Unless something else is said."""
    login = {"method": "kubernetes", "role": "penstock-serve"}
    vault = parse({"vault": {**SMALLEST, "serve": login}}).vault
    assert vault is not None
    assert isinstance(vault.serve, KubernetesLogin)
    assert vault.serve.token_file == SERVICE_ACCOUNT_TOKEN == Path(vault.serve.token_file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"addresses": []}, "addresses", id="no-address"),
        pytest.param({"addresses": ["http://vault:8200"]}, "https", id="without-tls"),
        pytest.param(
            {"addresses": ["https://vault:8200/v1"]},
            "expected 'https://vault:8200'",
            id="with-a-path",
        ),
        pytest.param({"addresses": ["https://vault:8200?"]}, "more than a host", id="with-a-query"),
        pytest.param({"timeout": "10ms"}, "shorter than 0.1 s", id="no-time"),
        pytest.param({"serve": {"method": "guess"}}, "expected method", id="unknown-login"),
        pytest.param({"serve": {**TOKEN, "token": "hvs.in-the-clear"}}, "reference", id="value"),
        pytest.param({"key_prefix": "a.b"}, "key_prefix", id="dot-in-the-prefix"),
    ],
)
def test_what_cannot_work_is_refused(
    faults_of: FaultsOf, change: dict[str, Any], said: str
) -> None:
    """With what was expected, and without repeating a secret."""
    faults = faults_of({"vault": {**SMALLEST, **change}})
    assert any(said in each for each in faults), faults
    assert not any("hvs." in each for each in faults)
