"""What configuration says about Vault, as settings and metrics."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.app.vault import KeptSecret, VaultMemory, open_vault, vault_findings, vault_settings
from broker.config import Config, SecretRef
from broker.issuance.errors import Broken
from broker.keys.vault_answers import RawAnswer
from broker.keys.vault_logins import AppRoleLogin
from broker.keys.vault_session import VaultConnections
from broker.keys.vault_settings import (
    AppRoleSettings,
    CertificateSettings,
    KubernetesSettings,
    LoginSettings,
    TokenSettings,
)
from broker.keys.vault_wrapping import OpenedTokens
from broker.telemetry import Telemetry
from tests.fakes.clock import FakeClock
from tests.fakes.fake_vault import FakeVault, answer, refused
from tests.unit.app.test_assembly import config_in

VAULT: dict[str, Any] = {
    "addresses": ["https://a.corp.example:8200", "https://b.corp.example:8200"],
    "namespace": "pki",
    "ca_bundle": "/etc/penstock/vault-ca.pem",
    "timeout": "3s",
    "serve": {
        "method": "approle",
        "role_id": "file:/etc/penstock/role-id",
        "secret_id": "file:/run/penstock/secret-id",
    },
    "rotate": {"method": "kubernetes", "role": "penstock-rotate", "token_file": "/run/token"},
    "mounts": {
        "transit-ca": {
            "serve": {
                "method": "certificate",
                "role": "ca",
                "certificate": "/etc/tls.pem",
                "key": "/etc/tls.key",
            },
            "rotate": {"method": "token", "token": "env:VAULT_CA"},
        }
    },
}


def test_without_the_section_there_is_no_vault(tmp_path: Path) -> None:
    """Nor are there metrics about one."""
    config = config_in(tmp_path)
    telemetry = Telemetry(version="1", upstreams=(), clock=FakeClock())
    assert vault_settings(config) is None
    assert open_vault(config, FakeClock(), telemetry) is None
    assert not telemetry.before_render


def test_every_way_of_logging_in_is_taken_over(tmp_path: Path) -> None:
    """By mount, with the one that all other mounts share under no name."""
    config = config_in(tmp_path, vault=VAULT)
    settings = vault_settings(config)
    assert settings is not None
    assert settings.addresses == tuple(VAULT["addresses"])
    assert (settings.namespace, str(settings.ca_bundle)) == ("pki", VAULT["ca_bundle"])
    assert settings.timeout.total_seconds() == 3
    assert settings.state_dir == config.state
    shared, own = settings.identities[""], settings.identities["transit-ca"]
    assert isinstance(shared.serve, AppRoleSettings)
    assert shared.serve.is_wrapped
    assert shared.serve.place == "file:/run/penstock/secret-id"
    assert shared.rotate == KubernetesSettings(
        role="penstock-rotate", token_file=Path("/run/token")
    )
    assert own.serve == CertificateSettings(
        role="ca", certificate=Path("/etc/tls.pem"), key=Path("/etc/tls.key")
    )
    assert isinstance(own.rotate, TokenSettings)
    assert own.rotate.place == "env:VAULT_CA"


def test_what_opens_vault_cannot_lie_in_it(tmp_path: Path) -> None:
    """Whether the file was checked or not."""
    serve = {"method": "token", "token": "file:/run/token"}
    config = config_in(tmp_path, vault={"addresses": ["https://a:8200"], "serve": serve})
    assert config.vault is not None
    reference = config.vault.serve.token.__class__("vault", "kv/a#b")  # type: ignore[union-attr]
    inside = config.vault.serve.model_copy(update={"token": reference})
    changed = config.model_copy(update={"vault": config.vault.model_copy(update={"serve": inside})})
    with pytest.raises(Broken, match=r"vault\.serve\.token refers to Vault itself"):
        vault_settings(changed)


async def test_metrics_are_there_before_anything_happens(tmp_path: Path) -> None:
    """Each identity has its series, whether it serves or rotates."""
    telemetry = Telemetry(version="1", upstreams=(), clock=FakeClock())
    vault = open_vault(config_in(tmp_path, vault=VAULT), FakeClock(), telemetry)
    assert vault is not None
    page = (await telemetry.render()).decode()
    for identity in ("default", "default:rotate", "transit-ca", "transit-ca:rotate"):
        series = f'penstock_vault_logins_total{{identity="{identity}",outcome="ok"}} 0.0'
        assert series in page
    await vault.close()


def connections(config: Config, tmp_path: Path, vault: FakeVault) -> VaultConnections:
    """Return connections of this configuration to a Vault of values."""
    settings = vault_settings(config)
    assert settings is not None
    return VaultConnections(
        replace(settings, state_dir=tmp_path),
        FakeClock(),
        exchange=vault,
        blocking=vault.blocking,
    )


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        pytest.param(answer({"data": {"policies": ["penstock.serve"]}}), [], id="well"),
        pytest.param(answer({"data": {"policies": ["root"]}}), ["a root token"], id="root"),
        pytest.param(refused(503, "Vault is sealed"), ["sealed: "], id="sealed"),
        pytest.param(refused(403, "invalid token"), ["denied: "], id="denied"),
    ],
)
async def test_vault_is_found_to_be_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: RawAnswer, found: list[str]
) -> None:
    """Whether or not a key of ours is in there."""
    monkeypatch.setenv("A_TOKEN", "hvs.t")
    login = {"method": "token", "token": "env:A_TOKEN"}
    config = config_in(tmp_path, vault={"addresses": ["https://a:8200"], "serve": login})
    vault = FakeVault()
    vault.on("lookup-self", rule)
    made = connections(config, tmp_path, vault)
    rows = await vault_findings(config, made)
    await made.close()
    assert len(rows) == len(found)
    for row, words in zip(rows, found, strict=True):
        assert row["use"] == "Vault, as 'default'"
        assert words in row["finding"]


async def test_wrapping_token_is_left_to_the_broker(tmp_path: Path) -> None:
    """A command that opened it would leave the broker with nothing."""
    config = config_in(tmp_path, vault=VAULT)
    vault = FakeVault()
    made = connections(config, tmp_path, vault)
    assert await vault_findings(config, made) == []
    await made.close()
    assert not vault.asked


def test_login_that_is_the_same_is_remembered_from_turn_to_turn(tmp_path: Path) -> None:
    """A secret id that came wrapped is had once; the twin, another one, is another login."""
    memory = VaultMemory()

    def serve(**changes: Any) -> LoginSettings:
        vault = {**VAULT, **changes}
        settings = vault_settings(config_in(tmp_path, vault=vault), memory)
        assert settings is not None
        return settings.identities[""].serve

    first = serve()
    memory.logins[first] = (kept := AppRoleLogin(first, OpenedTokens(tmp_path / "opened")))  # type: ignore[arg-type]
    assert memory.logins[serve(timeout="4s")] is kept
    other = {**VAULT["serve"], "secret_id": "file:/run/penstock/other"}
    assert serve(serve=other) not in memory.logins
    assert memory.logins[serve()] is kept


def test_secrets_are_remembered_for_a_vault_that_is_away(tmp_path: Path) -> None:
    """It is asked again, if it is there; what another Vault said is nothing to this one."""
    memory, now = VaultMemory(), FakeClock().now()
    vault = config_in(tmp_path, vault=VAULT).vault
    reference = SecretRef("vault", "kv/penstock/test#field")
    memory.secrets(vault, now)[reference] = KeptSecret(b"first", now + timedelta(minutes=1))
    assert memory.secrets(vault, now)[reference] == KeptSecret(b"first", now)
    other = config_in(tmp_path, vault={**VAULT, "namespace": "other"}).vault
    assert memory.secrets(other, now) == {}
    assert memory.secrets(vault, now) == {}
