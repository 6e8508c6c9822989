"""HashiCorp Vault on loopback: unsealed, in memory, with a root token; and its PKI as a CA.

It is built only by ``tests/peers/install --long``, so whoever starts it says what to do
where it is not there.
"""

from __future__ import annotations

import datetime
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.peers import authority, process
from tests.peers.installation import VAULT, installed, locate

__all__ = ["Vault", "VaultPki", "is_vault_built"]

ANSWER_SECONDS: Final = 10.0
"""Longest wait for one answer; making an RSA root, the slowest thing here, takes under 2 s."""

VERSION: Final = VAULT.version

CONFIG: Final = """\
disable_mlock = true
ui = false
api_addr = "{url}"
storage "inmem" {{}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file = "{key}"
}}
"""


def is_vault_built() -> bool:
    """Say whether Vault lies in the cache."""
    return locate("vault") is not None


class Vault(process.Peer):
    """A Vault of its own, initialised and unsealed with one key, serving HTTPS."""

    name = "vault"

    def __init__(self, tmp: Path) -> None:
        super().__init__(tmp)
        self.port = process.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        root = authority.make_root("vault HTTPS")
        server = authority.make_server(root, ["127.0.0.1", "localhost"])
        self._certificate, self._key, self.ca_bundle = authority.write_server_files(
            tmp, server, root
        )
        self.root_token = ""
        self.unseal_key = ""

    def command(self) -> Sequence[str]:
        """Write vault.hcl and return the command line."""
        config = self.directory / "vault.hcl"
        text = CONFIG.format(
            url=self.url, port=self.port, certificate=self._certificate, key=self._key
        )
        config.write_text(text, "ascii")
        return [str(installed("vault")), "server", f"-config={config}"]

    def is_ready(self) -> bool:
        """Ask whether it listens; what it stores is not open yet."""
        return process.is_answering(f"{self.url}/v1/sys/seal-status", self.ca_bundle)

    def start(self) -> None:
        """Start, initialise and unseal it, and wait until it is active."""
        super().start()
        try:
            made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self.root_token, self.unseal_key = made["root_token"], made["keys"][0]
            self.unseal()
        except BaseException:
            self.stop()
            raise

    def unseal(self) -> None:
        """Open what it stores, and wait until it is active."""
        self.ask("PUT", "sys/unseal", {"key": self.unseal_key})
        process.wait_until(self.is_active, process.START_SECONDS, "vault is active")

    def seal(self) -> None:
        """Close what it stores: every request but a few is then answered with 503."""
        self.ask("PUT", "sys/seal", {})

    def is_active(self) -> bool:
        """Ask its health page, which answers 200 only where it is unsealed and active."""
        return process.is_answering(f"{self.url}/v1/sys/health", self.ca_bundle)

    def ask(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
    ) -> Any:
        """Do one API request, as root unless *token* says otherwise; return the answer's JSON.

        Raises:
            PeerFailed: Vault refused; its errors are in the text.
        """
        body = None if document is None else json.dumps(document).encode()
        headers = {"X-Vault-Token": token if token is not None else self.root_token}
        request = urllib.request.Request(
            f"{self.url}/v1/{path}", data=body, headers=headers, method=method
        )
        try:
            with process.opener(self.ca_bundle).open(request, timeout=ANSWER_SECONDS) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            raise process.PeerFailed(f"{method} {path} answered {error.code}: {text}") from None
        return json.loads(content) if content else None

    def enable(self, kind: str, path: str, **options: Any) -> None:
        """Mount the secrets engine *kind* at *path*."""
        self.ask("POST", f"sys/mounts/{path}", {"type": kind, **options})

    def enable_auth(self, kind: str, path: str | None = None) -> None:
        """Mount the auth method *kind*."""
        self.ask("POST", f"sys/auth/{path or kind}", {"type": kind})

    def write_policy(self, name: str, text: str) -> None:
        """Write an ACL policy in HCL."""
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})

    def token(self, *policies: str, **options: Any) -> str:
        """Return a token with *policies* alone."""
        document = {"policies": list(policies), "no_default_policy": True, **options}
        made = self.ask("POST", "auth/token/create", document)
        return str(made["auth"]["client_token"])

    def environment(self) -> dict[str, str]:
        """Return the environment, with two processors' worth of threads at most."""
        threads = str(min(2, os.cpu_count() or 1))
        return process.clean_environment(self.directory, {"GOMAXPROCS": threads})


class VaultPki:
    """A PKI engine of a Vault that serves ACME, with a role for each lifetime.

    It looks for http-01 at port 80 and for tls-alpn-01 at port 443 alone, so that in here
    dns-01 is what is left.
    """

    MOUNT: Final = "pki"

    def __init__(self, vault: Vault, *, dns_server: str) -> None:
        self.vault = vault
        self._dns_server = dns_server

    def set_up(self, roles: Mapping[str, datetime.timedelta]) -> None:
        """Make the CA, and a role by name for each lifetime."""
        vault, mount = self.vault, self.MOUNT
        vault.enable("pki", mount, config={"max_lease_ttl": "87600h"})
        headers = {
            "passthrough_request_headers": ["If-Modified-Since"],
            "allowed_response_headers": ["Last-Modified", "Location", "Replay-Nonce", "Link"],
        }
        vault.ask("POST", f"sys/mounts/{mount}/tune", headers)
        vault.ask("POST", f"{mount}/config/cluster", {"path": f"{vault.url}/v1/{mount}"})
        root = {"common_name": "vault test root", "ttl": "720h", "key_type": "ec"}
        vault.ask("POST", f"{mount}/root/generate/internal", root)
        for name, lifetime in roles.items():
            role = {
                "allow_any_name": True,
                "require_cn": False,
                "key_type": "any",
                "max_ttl": f"{int(lifetime.total_seconds())}s",
                "ttl": f"{int(lifetime.total_seconds())}s",
                "server_flag": True,
                "client_flag": False,
                "not_before_duration": "30s",
            }
            vault.ask("POST", f"{mount}/roles/{name}", role)
        acme = {"enabled": True, "eab_policy": "not-required", "dns_resolver": self._dns_server}
        vault.ask("POST", f"{mount}/config/acme", acme)

    def directory_url_of(self, role: str) -> str:
        """Return the ACME directory that issues by *role*."""
        return f"{self.vault.url}/v1/{self.MOUNT}/roles/{role}/acme/directory"

    def root_pem(self) -> bytes:
        """Return the root that certificates lead to."""
        return process.get(f"{self.vault.url}/v1/{self.MOUNT}/ca/pem", self.vault.ca_bundle)

    def issued(self) -> list[int]:
        """Return the serials of the certificates that it keeps."""
        listed = self.vault.ask("LIST", f"{self.MOUNT}/certs")
        return [int(serial.replace(":", ""), 16) for serial in listed["data"]["keys"]]

    def is_revoked(self, serial: int) -> bool:
        """Say whether a revocation list made just now names *serial*."""
        self.vault.ask("GET", f"{self.MOUNT}/crl/rotate")
        body = process.get(f"{self.vault.url}/v1/{self.MOUNT}/crl", self.vault.ca_bundle)
        crl = x509.load_der_x509_crl(body)
        return crl.get_revoked_certificate_by_serial_number(serial) is not None
