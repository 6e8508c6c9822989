"""certbot, the most used ACME client, with directories of its own for every instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.peers.client import (
    RUN_SECONDS,
    DnsUpdates,
    ExternalAccount,
    Obtained,
    Run,
    is_address,
    run_client,
)
from tests.peers.installation import installed
from tests.peers.stock import HTTP_01, PLAIN, TLS_ALPN_01, Key, Place, StockClient, Verb, Wish

QUIET: Final = (
    "--non-interactive",
    "--agree-tos",
    "--register-unsafely-without-email",
    "--no-directory-hooks",
)


class Certbot:
    """One certbot with its own account and store; run it once at a time."""

    def __init__(
        self,
        tmp: Path,
        directory_url: str,
        ca_bundle: Path,
        *,
        external_account: ExternalAccount | None = None,
        program: str = "certbot",
    ) -> None:
        self.directory = tmp
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory_url = directory_url
        self._environment: Mapping[str, str] = {"REQUESTS_CA_BUNDLE": str(ca_bundle)}
        self._external_account = external_account
        self._program = str(installed(program))

    async def certonly_standalone(
        self,
        names: Sequence[str],
        *,
        http_port: int,
        address: str = "127.0.0.1",
        csr: Path | None = None,
        options: Sequence[str] = (),
    ) -> Obtained:
        """Obtain a certificate by http-01, answering at *http_port* of a loopback address.

        ``csr`` takes the place of a key made by certbot; *options* are passed
        as they are, for instance ``--key-type rsa`` or ``--preferred-profile x``.
        """
        solver = ["--standalone", "--http-01-address", address]
        solver += ["--http-01-port", str(http_port)]
        return await self._certonly(names, solver, csr, options)

    async def certonly_rfc2136(
        self,
        names: Sequence[str],
        updates: DnsUpdates,
        *,
        csr: Path | None = None,
        options: Sequence[str] = (),
    ) -> Obtained:
        """Obtain a certificate by dns-01, setting the records by DNS update."""
        solver = ["--dns-rfc2136", "--dns-rfc2136-propagation-seconds", "0"]
        solver += ["--dns-rfc2136-credentials", str(self._credentials(updates))]
        return await self._certonly(names, solver, csr, options)

    async def renew(self, *, options: Sequence[str] = ()) -> Run:
        """Renew everything this certbot holds now, the way each was obtained."""
        command = ["renew", "--force-renewal", "--no-random-sleep-on-renew", *options]
        return await self.run(command)

    async def revoke(
        self, obtained: Obtained, *, by_certificate_key: bool = False, reason: str = "unspecified"
    ) -> Run:
        """Revoke a certificate as its account, or with the certificate's own key."""
        command = ["revoke", "--cert-path", str(obtained.certificate), "--reason", reason]
        if by_certificate_key:
            command += ["--key-path", str(obtained.key)]
        return await self.run([*command, "--no-delete-after-revoke"])

    async def run(self, arguments: Sequence[str], *, seconds: float = RUN_SECONDS) -> Run:
        """Run any certbot command against this instance's directory and store."""
        command = [self._program, *arguments, *QUIET, "--server", self.directory_url]
        for kind in ("config", "work", "logs"):
            command += [f"--{kind}-dir", str(self.directory / kind)]
        return await run_client(
            command, directory=self.directory, environment=self._environment, seconds=seconds
        )

    async def _certonly(
        self, names: Sequence[str], solver: list[str], csr: Path | None, options: Sequence[str]
    ) -> Obtained:
        command = ["certonly", *solver, *options]
        for name in names:
            command += ["--ip-address" if is_address(name) else "--domain", name]
        if self._external_account is not None:
            command += ["--eab-kid", self._external_account.kid]
            command += ["--eab-hmac-key", self._external_account.hmac_b64url]
        if csr is not None:
            where = self._beside(csr)
            command += ["--csr", str(csr), "--cert-path", str(where.certificate)]
            command += ["--chain-path", str(where.chain), "--fullchain-path", str(where.fullchain)]
            await self.run(command)
            return where
        store = names[0].removeprefix("*.").replace(":", "")
        await self.run([*command, "--cert-name", store])
        return self.obtained(store)

    def obtained(self, name: str) -> Obtained:
        """Return where the newest certificate kept under *name* lies."""
        live = self.directory / "config" / "live" / name
        pem = [live / f"{part}.pem" for part in ("cert", "chain", "fullchain", "privkey")]
        return Obtained(*pem)

    def _beside(self, csr: Path) -> Obtained:
        stem = self.directory / csr.stem
        return Obtained(
            certificate=stem.with_suffix(".cert.pem"),
            chain=stem.with_suffix(".chain.pem"),
            fullchain=stem.with_suffix(".fullchain.pem"),
            key=None,
        )

    def _credentials(self, updates: DnsUpdates) -> Path:
        path = self.directory / "rfc2136.ini"
        path.touch(mode=0o600)
        fields = {
            "server": updates.host,
            "port": updates.port,
            "name": updates.tsig_name,
            "secret": updates.tsig_secret_b64,
            "algorithm": updates.tsig_algorithm.upper(),
        }
        lines = [f"dns_rfc2136_{key} = {value}\n" for key, value in fields.items()]
        path.write_text("".join(lines), "ascii")
        return path


KEYS: Final = {
    Key.P256: ("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
    Key.P384: ("--key-type", "ecdsa", "--elliptic-curve", "secp384r1"),
    Key.RSA_2048: ("--key-type", "rsa", "--rsa-key-size", "2048"),
}


class StockCertbot(StockClient):
    """The current certbot as one of the stock clients."""

    kind = "certbot"
    lacks: ClassVar = {
        TLS_ALPN_01: "needs a plug-in from elsewhere",
        Verb.KEY_CHANGE: "has no command for it",
        Verb.NOT_AFTER: "has no option for it",
    }
    program: ClassVar = "certbot"

    def __init__(
        self,
        tmp: Path,
        directory_url: str,
        ca_bundle: Path,
        place: Place,
        *,
        external_account: ExternalAccount | None = None,
    ) -> None:
        super().__init__(tmp, directory_url, ca_bundle, place, external_account=external_account)
        self._certbot = Certbot(
            tmp,
            directory_url,
            ca_bundle,
            external_account=external_account,
            program=self.program,
        )
        self._name = ""

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Run ``certonly``."""
        options: list[str] = [] if wish.csr else [*KEYS[wish.key]]
        if wish.profile is not None:
            options += ["--required-profile", wish.profile]
        if wish.chain_of is not None:
            options += ["--preferred-chain", wish.chain_of]
        self._name = names[0].removeprefix("*.").replace(":", "")
        if challenge == HTTP_01:
            return await self._certbot.certonly_standalone(
                names,
                http_port=self.place.http_port,
                address=self.place.address,
                csr=wish.csr,
                options=options,
            )
        updates = self.place.updates
        return await self._certbot.certonly_rfc2136(names, updates, csr=wish.csr, options=options)

    async def renew(self) -> Obtained:
        """Run ``renew --force-renewal``."""
        await self._certbot.renew()
        return self._certbot.obtained(self._name)

    async def renew_when_told(self) -> Obtained:
        """Run ``renew`` as a timer does."""
        await self._certbot.run(["renew", "--no-random-sleep-on-renew"])
        return self._certbot.obtained(self._name)

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke as the account."""
        await self._certbot.revoke(obtained, reason="superseded")

    async def revoke_by_key(self, obtained: Obtained) -> None:
        """Revoke with the certificate's key."""
        await self._certbot.revoke(obtained, by_certificate_key=True)

    async def update_contact(self, address: str) -> None:
        """Replace the contact."""
        await self._certbot.run(["update_account", "--email", address])

    async def deactivate(self) -> None:
        """Give the account up."""
        await self._certbot.run(["unregister"])


class DebianCertbot(StockCertbot):
    """The certbot that Debian 12 has."""

    kind = "certbot of Debian 12"
    lacks: ClassVar = {
        **StockCertbot.lacks,
        Verb.PROFILE: "not in this version",
        Verb.RENEWAL_INFO: "not in this version",
        Verb.IPV4: "not in this version",
        Verb.IPV6: "not in this version",
    }
    program: ClassVar = "certbot-debian"
