"""HashiCorp Vault on loopback, over HTTPS, with a root token; and its PKI as a CA.

What it keeps lies on the disk, so that it may be stopped, killed, started again, and put back to
an older state.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal

from cryptography import x509

from tests.peers import authority, process
from tests.peers.installation import VAULT, VAULT_KUBERNETES, installed
from tests.peers.token_reviews import TokenReviews

__all__ = ["Storage", "Vault", "VaultPki", "make_client_certificate"]

Storage = Literal["raft", "inmem"]
"""Where a Vault keeps what it keeps: the one node of a Raft cluster, or memory alone."""

ANSWER_SECONDS: Final = 60.0
"""Longest wait for one answer; making an RSA root, the slowest thing here, takes under 2 s."""

VERSION: Final = VAULT.version

CONFIG: Final = """\
disable_mlock = true
ui = false
api_addr = "{url}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
plugin_directory = "{plugins}"
storage "{storage}" {{
{more}}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file = "{key}"
}}
"""
"""A listener asks for a client's certificate and takes any: the auth method looks at it."""

RAFT: Final = """\
  path = "{path}"
  node_id = "one"
  performance_multiplier = 1
"""
"""A node that is alone and elects itself after the shortest time that there is."""


def make_client_certificate(
    directory: Path, common_name: str, issuer: authority.Signer
) -> tuple[Path, Path]:
    """Write a certificate and key for logging in by; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    client = authority.make_client(issuer, common_name)
    certificate, key = directory / f"{common_name}.pem", directory / f"{common_name}.key"
    certificate.write_bytes(client.certificate_pem)
    key.write_bytes(client.key_pem())
    return certificate, key


class Vault(process.Peer):
    """A Vault of its own, initialised and unsealed with one key, serving HTTPS.

    *storage* says where it keeps things; ``inmem`` forgets them when it stops.
    """

    name = "vault"

    def __init__(self, tmp: Path, *, storage: Storage = "raft") -> None:
        super().__init__(tmp)
        self.port = process.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        root = authority.make_root("vault HTTPS")
        server = authority.make_server(root, ["127.0.0.1", "localhost"])
        self._certificate, self._key, self.ca_bundle = authority.write_server_files(
            tmp, server, root
        )
        self._storage = storage
        self._cluster_port = process.free_port()
        self.storage_directory = tmp / "storage"
        self.root_token = ""
        self.unseal_key = ""

    def command(self) -> Sequence[str]:
        """Write vault.hcl and return the command line."""
        config = self.directory / "vault.hcl"
        self.storage_directory.mkdir(exist_ok=True)
        text = CONFIG.format(
            url=self.url,
            port=self.port,
            cluster_port=self._cluster_port,
            plugins=installed(VAULT_KUBERNETES.name).parent,
            storage=self._storage,
            more=RAFT.format(path=self.storage_directory) if self._storage == "raft" else "",
            certificate=self._certificate,
            key=self._key,
        )
        config.write_text(text, "ascii")
        return [str(installed("vault")), "server", f"-config={config}"]

    def is_ready(self) -> bool:
        """Ask whether it listens; what it stores is not open yet."""
        return process.is_answering(f"{self.url}/v1/sys/seal-status", self.ca_bundle)

    def start(self) -> None:
        """Start it, initialise it the first time, unseal it, and wait until it is active."""
        self.start_sealed()
        try:
            self.unseal()
        except BaseException:
            self.stop()
            raise

    def start_sealed(self) -> None:
        """Start it, initialise it the first time, and leave it sealed."""
        super().start()
        if self.root_token:
            return
        try:
            made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        except BaseException:
            self.stop()
            raise
        self.root_token, self.unseal_key = made["root_token"], made["keys"][0]

    def restart(self) -> None:
        """Stop it if it runs, and start it with what it kept, at the same port."""
        self.stop()
        self.start()

    def save_storage(self, directory: Path) -> None:
        """Copy what it keeps to *directory*, as a backup would.

        Raises:
            PeerFailed: It runs; a copy of files that change is none.
        """
        self._see_that_it_is_stopped()
        shutil.copytree(self.storage_directory, directory)

    def restore_storage(self, directory: Path) -> None:
        """Put back what `save_storage` copied, so that it knows nothing of what came after.

        Raises:
            PeerFailed: It runs.
        """
        self._see_that_it_is_stopped()
        self.lose_storage()
        shutil.copytree(directory, self.storage_directory)

    def lose_storage(self) -> None:
        """Delete all it keeps; with `root_token` emptied, the next start makes a new Vault.

        Raises:
            PeerFailed: It runs.
        """
        self._see_that_it_is_stopped()
        shutil.rmtree(self.storage_directory, ignore_errors=True)

    def _see_that_it_is_stopped(self) -> None:
        if self._process is not None:
            raise process.PeerFailed("vault runs; stop it first")

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
        wrap: str | None = None,
    ) -> Any:
        """Do one API request, as root unless *token* says otherwise; return the answer's JSON,
        which is wrapped for as long as *wrap* says.

        Raises:
            PeerFailed: Vault refused; its errors are in the text.
        """
        who = token if token is not None else self.root_token
        headers = {"X-Vault-Token": who, **({"X-Vault-Wrap-TTL": wrap} if wrap else {})}
        status, content = self._exchange(method, path, document, headers)
        if status >= HTTPStatus.BAD_REQUEST:
            text = content.decode("utf-8", "replace")
            raise process.PeerFailed(f"{method} {path} answered {status}: {text}")
        return json.loads(content) if content else None

    def status(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        token: str,
        wrap: str | None = None,
    ) -> int:
        """Return the HTTP status of one API request, whose answer is *wrap*ped for so long."""
        headers = {"X-Vault-Token": token, **({"X-Vault-Wrap-TTL": wrap} if wrap else {})}
        return self._exchange(method, path, document, headers)[0]

    def log_in_by_certificate(self, certificate: Path, key: Path, mount: str = "cert") -> Any:
        """Log in by a TLS client certificate; return the answer's JSON.

        Raises:
            PeerFailed: Vault refused.
        """
        path = f"auth/{mount}/login"
        status, content = self._exchange("POST", path, {}, {}, client=(certificate, key))
        if status >= HTTPStatus.BAD_REQUEST:
            raise process.PeerFailed(f"{path} answered {status}: {content!r}")
        return json.loads(content)

    def _exchange(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        *,
        client: tuple[Path, Path] | None = None,
    ) -> tuple[int, bytes]:
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/{path}", data=body, headers=dict(headers), method=method
        )
        opener = process.opener(self.ca_bundle, client)
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def enable(self, kind: str, path: str, **options: Any) -> None:
        """Mount the secrets engine *kind* at *path*."""
        self.ask("POST", f"sys/mounts/{path}", {"type": kind, **options})

    def enable_auth(self, kind: str, path: str | None = None) -> None:
        """Mount the auth method *kind*; for kubernetes the plugin is registered first."""
        if kind == "kubernetes":
            self._register_kubernetes()
        self.ask("POST", f"sys/auth/{path or kind}", {"type": kind})

    def _register_kubernetes(self) -> None:
        program = installed(VAULT_KUBERNETES.name)
        entry = {
            "sha256": hashlib.sha256(program.read_bytes()).hexdigest(),
            "command": program.name,
        }
        self.ask("PUT", "sys/plugins/catalog/auth/kubernetes", entry)

    def enable_kubernetes(self, reviews: TokenReviews, path: str = "kubernetes") -> None:
        """Mount the Kubernetes auth method, which asks *reviews* about every token."""
        self.enable_auth("kubernetes", path)
        config = {
            "kubernetes_host": reviews.url,
            "kubernetes_ca_cert": reviews.ca_bundle.read_text("ascii"),
            "token_reviewer_jwt": reviews.reviewer_token,
            "disable_local_ca_jwt": True,
        }
        self.ask("POST", f"auth/{path}/config", config)

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
