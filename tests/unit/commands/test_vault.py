"""``penstock vault``."""

from pathlib import Path

from tests.unit.app.test_vault_setup import HEAD, UPSTREAMS, VAULT
from tests.unit.commands.conftest import FakeOperations, Run


def write_config(tmp_path: Path, *parts: str) -> str:
    """Write a configuration and return its path."""
    path = tmp_path / "vault.yaml"
    path.write_text("".join([HEAD, *parts]), "utf-8")
    return str(path)


def test_script_is_printed(run: Run, operations: FakeOperations, tmp_path: Path) -> None:
    """From the configuration alone: no broker is asked."""
    path = write_config(tmp_path, VAULT, UPSTREAMS)
    status, out, err = run("vault", "setup", "--print", "--config", path)
    assert (status, err) == (0, "")
    assert out.startswith("#!/bin/sh\n# What the broker at https://acme.corp.example:8443 needs")
    assert "/import" not in out
    assert operations.asked == []


def test_policies_alone_are_printed(run: Run, tmp_path: Path) -> None:
    """HCL, each under its name."""
    path = write_config(tmp_path, VAULT, UPSTREAMS)
    status, out, _ = run(
        "vault", "setup", "--print", "--as", "hcl", "--with-import", "--config", path
    )
    assert status == 0
    assert out.startswith("# policy penstock.serve: ")
    assert 'path "transit/wrapping_key" {' in out
    assert "vault policy write" not in out


def test_nothing_is_done_without_print(run: Run, tmp_path: Path) -> None:
    """A command that only prints says so when it is asked for more."""
    path = write_config(tmp_path, VAULT, UPSTREAMS)
    status, out, err = run("vault", "setup", "--config", path)
    assert (status, out) == (2, "")
    assert "say --print" in err


def test_service_account_has_a_namespace(run: Run, tmp_path: Path) -> None:
    """A name alone would be bound in no namespace at all."""
    path = write_config(tmp_path, VAULT, UPSTREAMS)
    asked = ("vault", "setup", "--print", "--config", path, "--service-account")
    status, _, err = run(*asked, "broker")
    assert status == 2
    assert "is not NAMESPACE/NAME" in err
    status, out, _ = run(*asked, "pki/broker")
    assert status == 0
    assert "bound_service_account_namespaces=pki" in out


def test_configuration_without_vault_is_told(run: Run, tmp_path: Path) -> None:
    """Exit status 2: nothing was tried."""
    path = write_config(tmp_path, UPSTREAMS.replace('"vault:transit"', "file"))
    status, out, err = run("vault", "setup", "--print", "--config", path)
    assert (status, out) == (2, "")
    assert "no section 'vault'" in err
