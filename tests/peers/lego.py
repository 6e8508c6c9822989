"""lego, the ACME client and library in Go, with a store of its own for every instance."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.client import RUN_SECONDS, DnsUpdates, ExternalAccount, Obtained, Run, run_client
from tests.peers.installation import installed


class Lego:
    """One lego with its own account and store; run it once at a time."""

    def __init__(
        self,
        tmp: Path,
        directory_url: str,
        ca_bundle: Path,
        *,
        external_account: ExternalAccount | None = None,
        key_type: str = "ec256",
    ) -> None:
        self.directory = tmp
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory_url = directory_url
        self._ca_bundle = ca_bundle
        self._common = [str(installed("lego")), "--server", directory_url, "--accept-tos"]
        self._common += ["--email", "lego@example.test", "--path", str(tmp / "store")]
        self._common += ["--key-type", key_type, "--cert.timeout", "60"]
        if external_account is not None:
            self._common += ["--eab", "--kid", external_account.kid]
            self._common += ["--hmac", external_account.hmac_b64url]

    async def run_http(
        self,
        names: Sequence[str],
        *,
        http_port: int,
        csr: Path | None = None,
        not_after: datetime.datetime | None = None,
        options: Sequence[str] = (),
    ) -> Obtained:
        """Obtain a certificate by http-01, answering on loopback *http_port*."""
        solver = self._http(http_port)
        return await self._obtain("run", names, solver, {}, csr, not_after, options)

    async def run_rfc2136(
        self,
        names: Sequence[str],
        updates: DnsUpdates,
        *,
        csr: Path | None = None,
        not_after: datetime.datetime | None = None,
        options: Sequence[str] = (),
    ) -> Obtained:
        """Obtain a certificate by dns-01, setting the records by DNS update."""
        solver, environment = self._dns(updates)
        return await self._obtain("run", names, solver, environment, csr, not_after, options)

    async def renew_http(self, names: Sequence[str], *, http_port: int) -> Obtained:
        """Renew by http-01 now, however long the certificate still lasts."""
        return await self._renew(names, self._http(http_port), {})

    async def renew_rfc2136(self, names: Sequence[str], updates: DnsUpdates) -> Obtained:
        """Renew by dns-01 now, however long the certificate still lasts."""
        solver, environment = self._dns(updates)
        return await self._renew(names, solver, environment)

    async def revoke(self, names: Sequence[str], *, reason: int = 0) -> Run:
        """Revoke the certificate kept for *names* and leave its files in place."""
        arguments = [*self._domains(names), "revoke", "--keep", "--reason", str(reason)]
        return await self.run(arguments)

    async def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        seconds: float = RUN_SECONDS,
    ) -> Run:
        """Run any lego command; global options come first, as lego wants them."""
        trusted = {"LEGO_CA_CERTIFICATES": str(self._ca_bundle), **(environment or {})}
        return await run_client(
            [*self._common, *arguments],
            directory=self.directory,
            environment=trusted,
            seconds=seconds,
        )

    async def _obtain(
        self,
        verb: str,
        names: Sequence[str],
        solver: list[str],
        environment: Mapping[str, str],
        csr: Path | None,
        not_after: datetime.datetime | None,
        options: Sequence[str],
    ) -> Obtained:
        subject = self._domains(names) if csr is None else ["--csr", str(csr)]
        arguments = [*subject, *solver, verb, *options]
        if not_after is not None:
            arguments += ["--not-after", not_after.strftime("%Y-%m-%dT%H:%M:%SZ")]
        await self.run(arguments, environment=environment)
        return self.obtained(names[0], has_key=csr is None)

    async def _renew(
        self, names: Sequence[str], solver: list[str], environment: Mapping[str, str]
    ) -> Obtained:
        now = ["--days", "100000", "--ari-disable", "--no-random-sleep"]
        return await self._obtain("renew", names, solver, environment, None, None, now)

    def obtained(self, name: str, *, has_key: bool = True) -> Obtained:
        """Return where the newest certificate for *name* lies, split as certbot splits it."""
        store = self.directory / "store" / "certificates"
        stem = name.replace("*", "_")
        fullchain = store / f"{stem}.crt"
        key = store / f"{stem}.key" if has_key else None
        leaf, _, _ = fullchain.read_text("ascii").partition("-----END CERTIFICATE-----\n")
        certificate = store / f"{stem}.leaf.crt"
        certificate.write_text(f"{leaf}-----END CERTIFICATE-----\n", "ascii")
        return Obtained(certificate, store / f"{stem}.issuer.crt", fullchain, key)

    def _domains(self, names: Sequence[str]) -> list[str]:
        return [part for name in names for part in ("--domains", name)]

    def _http(self, port: int) -> list[str]:
        return ["--http", "--http.port", f"127.0.0.1:{port}"]

    def _dns(self, updates: DnsUpdates) -> tuple[list[str], dict[str, str]]:
        server = f"{updates.host}:{updates.port}"
        # The zone's NS record says port 53, where nobody listens: lego must not ask there.
        options = ["--dns", "rfc2136", "--dns.resolvers", server, "--dns.propagation-disable-ans"]
        environment = {
            "RFC2136_NAMESERVER": server,
            "RFC2136_TSIG_ALGORITHM": f"{updates.tsig_algorithm}.",
            "RFC2136_TSIG_KEY": updates.tsig_name,
            "RFC2136_TSIG_SECRET": updates.tsig_secret_b64,
            "RFC2136_PROPAGATION_TIMEOUT": "10",
            "RFC2136_POLLING_INTERVAL": "1",
            "RFC2136_SEQUENCE_INTERVAL": "1",
        }
        return options, environment
