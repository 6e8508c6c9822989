"""What is written down for the security team: HCL and shell, with nothing of a secret in it."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from broker.app.vault_script import Wishes, write_policies, write_script
from tests.unit.app.test_vault_setup import UPSTREAMS, VAULT, planned

OF = "https://acme.corp.example:8443"

TOKEN = '{method: token, token: "file:/run/token"}'
APPROLE = '{method: approle, role_id: "file:/e/role", secret_id: "file:/e/secret"}'
CERTIFICATE = "{method: certificate, certificate: /e/c.pem, key: /e/k.pem}"
KUBERNETES = "{method: kubernetes, role: serving}"


def script(serve: str = APPROLE, *more: str, wishes: Wishes | None = None) -> str:
    """Return the script where serve logs in like that."""
    return write_script(
        planned(VAULT.replace(APPROLE, serve), *more, UPSTREAMS), of=OF, wishes=wishes
    )


@pytest.mark.parametrize("serve", [TOKEN, APPROLE, CERTIFICATE, KUBERNETES])
def test_shell_can_read_it(serve: str) -> None:
    """`sh -n` finds no fault, whichever way of logging in."""
    done = subprocess.run(
        ["/bin/sh", "-n"], input=script(serve), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_policies_are_what_the_script_writes() -> None:
    """HCL alone has the same rules."""
    setup = planned(VAULT, UPSTREAMS)
    text = write_script(setup, of=OF)
    for name, rules in re.findall(
        r"^# policy (\S+):[^\n]*\n(.*?)(?=^# policy |\Z)",
        write_policies(setup),
        re.DOTALL | re.MULTILINE,
    ):
        assert f"vault policy write {name} - <<'HCL'\n{rules.rstrip()}\nHCL" in text


def test_rules_are_hcl() -> None:
    """Path, capabilities and the only parameters that may be given."""
    text = write_policies(planned(VAULT, UPSTREAMS))
    assert (
        """path "transit/keys/penstock.default.ca/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_encryption_version" = []
    "min_decryption_version" = []
  }
}
"""
        in text
    )
    assert '    "exportable" = [false, "false"]\n' in text
    assert '  min_wrapping_ttl = "1s"\n  max_wrapping_ttl = "10m"\n' in text


def test_what_is_there_is_not_mounted_again() -> None:
    """Engines and auth methods are looked for first; everything else may be written twice."""
    lines = script().splitlines()
    mounting = [line for line in lines if " enable " in line and not line.startswith("#")]
    assert mounting
    assert all(line.startswith("is_mounted ") for line in mounting)


def test_serve_by_approle_is_renewed_for_ever() -> None:
    """Its secret id was unwrapped once, and nobody is there to deliver another."""
    text = script(APPROLE)
    assert "token_period=1h" in role_in(text, "auth/approle/role/penstock.serve")
    assert "token_max_ttl=1h" in role_in(text, "auth/kubernetes/role/rotating")
    assert "token_max_ttl=24h" in role_in(script(KUBERNETES), "auth/kubernetes/role/serving")


def role_in(text: str, path: str) -> list[str]:
    """Return the words of the command that writes the role at *path*."""
    command = next(
        line
        for line in text.replace("\\\n", "").splitlines()
        if line.startswith(f"vault write {path} ")
    )
    return shlex.split(command)


def test_no_role_has_the_default_policy() -> None:
    """Of any kind."""
    for serve in (APPROLE, CERTIFICATE, KUBERNETES):
        commands = [
            line
            for line in script(serve).replace("\\\n", "").splitlines()
            if line.startswith("vault write auth/")
        ]
        assert len(commands) == 2
        assert all("token_no_default_policy=true" in command for command in commands)


def test_wishes_bind_the_kubernetes_role() -> None:
    """Namespace, name and audience of the projected token."""
    words = role_in(
        script(wishes=Wishes(service_account="pki/broker", audience="vault.corp")),
        "auth/kubernetes/role/rotating",
    )
    assert {
        "bound_service_account_namespaces=pki",
        "bound_service_account_names=broker",
        "audience=vault.corp",
    } <= set(words)


def test_certificate_role_asks_for_its_ca() -> None:
    """Which CA signs client certificates is nothing that the broker knows."""
    text = script(CERTIFICATE)
    assert 'certificate=@"${PENSTOCK_CLIENT_CA:?' in text
    assert "allowed_common_names=penstock.serve" in text


def test_namespace_and_roots_are_set() -> None:
    """Commands go where the broker goes."""
    text = script(APPROLE, "  namespace: pki\n  ca_bundle: /etc/penstock/vault-ca.pem\n")
    assert "export VAULT_NAMESPACE=pki\n" in text
    assert '[ -n "${VAULT_CACERT:-}" ] || VAULT_CACERT=/etc/penstock/vault-ca.pem\n' in text
    assert "VAULT_NAMESPACE" not in script()


def test_what_has_a_secret_in_it_is_left_to_a_person() -> None:
    """Values, secret ids and tokens are told as comments, with where they belong."""
    text = script(TOKEN, "  sealing_key: transit/penstock.sealing\n")
    remaining = text.partition("# What remains:\n")[2].splitlines()
    assert all(line.startswith("#   ") for line in remaining)
    assert any("vault token create" in line and "file:/run/token" in line for line in remaining)
    assert any("-wrap-ttl=5m" in line for line in script(APPROLE).splitlines())
    assert not any("-wrap-ttl" in line for line in text.splitlines())


def test_what_several_roles_need_is_told_once() -> None:
    """Both log in at one mount, whose API server is set once."""
    remaining = script(KUBERNETES).partition("# What remains:\n")[2]
    assert "auth/kubernetes/role/rotating" in script(KUBERNETES)
    assert remaining.count("kubernetes_host=") == 1


def test_nothing_of_the_configuration_is_run() -> None:
    """Whoever runs it has every right in Vault, and only meant to write policies."""
    token = '{method: token, token: "file:/e/$(touch OUT)\\ntouch OUT"}'
    text = script(token, '  ca_bundle: "/e/$(touch OUT)`touch OUT`\\"; touch OUT; \\".pem"\n')
    for line in text.splitlines():
        if "touch" not in line or line.startswith("#"):
            continue
        words = shlex.split(line)
        assert words[-1] == 'VAULT_CACERT=/e/$(touch OUT)`touch OUT`"; touch OUT; ".pem'
        assert "'" in line


def test_variables_that_are_set_stay(tmp_path: Path) -> None:
    """The security team may reach Vault elsewhere; without them the configuration's are taken."""
    bundle = tmp_path / "it's $(a) bundle.pem"
    text = script(APPROLE, f'  ca_bundle: "{bundle}"\n')
    head = text[: text.index("# An audit device")] + 'printf "%s %s" "$VAULT_ADDR" "$VAULT_CACERT"'

    def run(**environment: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", head], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    assert run().endswith(f" {bundle}")
    assert run(VAULT_ADDR="https://x", VAULT_CACERT="/y") == "https://x /y"
