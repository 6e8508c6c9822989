"""A broker between Pebble and a Vault that everything secret lies in, with a proxy before Vault."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.deployments.between import Between
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.deployments.vaulted import OWN, SERVE, Transit
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.peers.vault import Vault

__all__ = ["Marked", "VaultScene"]

NAME: Final = "penstock.default.ca"
TRUSTED: Final = "trusted-tests"
CA_KID: Final = "kid-at-the-ca"

READ: Final = """\
path "kv/data/penstock/ca" { capabilities = ["read"] }
"""

VAULT_TIME: Final = timedelta(seconds=1)
"""How long a request to Vault may take here: a stopped Vault is to be noticed within a test."""


class Marked:
    """The secrets of a scene, to be looked for wherever they must not be."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def make(self, name: str) -> str:
        """Return a new secret, base64url of 32 octets, and remember it."""
        self.secrets[name] = b64(secrets.token_bytes(32))
        return self.secrets[name]

    def found_in(self, text: str) -> list[str]:
        """Return the names of those that occur."""
        return [name for name, value in self.secrets.items() if value in text]


class VaultScene:
    """The deployment; the broker logs in by AppRole."""

    def __init__(self, tmp: Path, stack: ExitStack, *, token_ttl: str = "30s", **more: Any) -> None:
        self.marked = Marked()
        self._token_ttl = token_ttl
        plain = process.free_port()
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        ca_mac = self.marked.make("eab-at-the-ca")
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=dns.dns_address,
                options=PebbleOptions(external_accounts={CA_KID: ca_mac}),
            )
        )
        self.vault = stack.enter_context(Vault(tmp / "vault"))
        self.audit = tmp / "vault" / "audit.log"
        (tmp / "transit").mkdir()
        self.transit = Transit(self.vault, tmp / "transit", "transit-penstock", [NAME])
        self.between = stack.enter_context(
            Between(tmp / "between", self.vault.port, self.vault.ca_bundle)
        )
        self._fill_vault(ca_mac)
        self.mac = self.marked.make("eab-of-a-requester")
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=process.free_port(),
            plain_port=plain,
            upstreams=[
                AcmeCa(
                    name="ca",
                    directory_url=self.pebble.directory_url,
                    ca_bundle=self.pebble.ca_bundle,
                    description="pebble",
                    options={
                        "account_key": {"store": self.transit.store},
                        "external_account_binding": {
                            "key_id": CA_KID,
                            "mac_key": "vault:kv/penstock/ca#mac_key",
                        },
                    },
                )
            ],
            policy={
                "trusted": [
                    {
                        "eab": [TRUSTED],
                        "names": ["**.example.test"],
                        "profiles": ["server"],
                        "because": "the tests say so",
                    }
                ]
            },
            limits={"finalize_wait": "200ms"},
            more={
                "vault": self._section(tmp),
                "external_account_bindings": [
                    {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
                ],
            },
            **more,
        )
        self.marked.secrets["passphrase"] = "a passphrase for tests"
        stack.enter_context(self.penstock)

    def _fill_vault(self, ca_mac: str) -> None:
        vault = self.vault
        # Raw, so that the test knows each token that the broker ever had.
        options = {"file_path": str(self.audit), "log_raw": "true"}
        vault.ask("POST", "sys/audit/file", {"type": "file", "options": options})
        vault.enable("kv", "kv", options={"version": "2"})
        vault.ask("POST", "kv/data/penstock/ca", {"data": {"mac_key": ca_mac}})
        serve = SERVE.format(mount=self.transit.mount, name=NAME)
        vault.write_policy("penstock-serve", OWN + serve + READ)
        vault.enable_auth("approle")
        role = {"token_policies": ["penstock-serve"], "token_ttl": self._token_ttl}
        vault.ask("POST", "auth/approle/role/serve", role)

    def _section(self, tmp: Path) -> dict[str, Any]:
        role_id = self.vault.ask("GET", "auth/approle/role/serve/role-id")["data"]["role_id"]
        made = self.vault.ask("POST", "auth/approle/role/serve/secret-id", {})
        self.marked.secrets["secret-id"] = made["data"]["secret_id"]
        return {
            "addresses": [f"https://127.0.0.1:{self.between.port}"],
            "ca_bundle": str(self.between.ca_bundle),
            "timeout": f"{VAULT_TIME.total_seconds():g}s",
            "serve": {
                "method": "approle",
                "role_id": secret(tmp, "role-id", role_id),
                "secret_id": secret(tmp, "secret-id", self.marked.secrets["secret-id"]),
                "is_wrapped": False,
            },
            "rotate": self.transit.rotate,
        }

    # --------------------------------------------------------------------------- asking around

    async def requester(self) -> Requester:
        """Return a client that policy trusts with every name; close it."""
        made = Requester(self.penstock.directory_url, self.penstock.ca_bundle)
        await made.__aenter__()
        answer = await made.bind(TRUSTED, self.mac)
        assert answer.status == 201, answer
        return made

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Ask the running broker."""
        return await Operator(self.penstock.state / "operator.sock").ask(command, **arguments)

    def readiness(self) -> str:
        """Return what ``/readyz`` says; it raises where the broker is not ready."""
        return process.get(f"http://127.0.0.1:{self.penstock.health_port}/readyz").decode()

    def metric(self, name: str, labels: str = 'identity="default"') -> float:
        """Return the value of a series about Vault."""
        pattern = rf"^penstock_vault_{name}\{{{re.escape(labels)}\}} (\S+)$"
        found = re.search(pattern, self.penstock.metrics(), re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def issued_for(self, name: str) -> int:
        """Return how many certificates Pebble says that it made for *name*."""
        count = 0
        for one in self.pebble.issued():
            pem = self.pebble.status(one.serial_hex).pem
            leaf = x509.load_pem_x509_certificate(pem)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            count += name in names.get_values_for_type(x509.DNSName)
        return count

    def tokens(self) -> set[str]:
        """Return every token of the role that Vault gave out, from its own audit log."""
        found = set()
        for line in self.audit.read_text("utf-8").splitlines():
            auth = json.loads(line).get("response", {}).get("auth") or {}
            if auth.get("client_token") and "penstock-serve" in (auth.get("policies") or ()):
                found.add(str(auth["client_token"]))
        return found

    def revoke_tokens(self) -> None:
        """Revoke every token of the role, as somebody would who fears that it is known."""
        self.vault.ask("POST", "sys/leases/revoke-prefix/auth/approle/login", {})
