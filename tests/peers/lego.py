"""lego, the ACME client and library in Go, with a store of its own for every instance."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.peers.client import RUN_SECONDS, DnsUpdates, ExternalAccount, Obtained, Run, run_client
from tests.peers.installation import installed
from tests.peers.stock import (
    DNS_01,
    HTTP_01,
    PLAIN,
    Key,
    Place,
    StockClient,
    Verb,
    Wish,
)

NOW: Final = ("--days", "100000", "--ari-disable", "--no-random-sleep")
"""Options of ``renew`` that leave no reason to wait."""

KEYS: Final = {Key.P256: "ec256", Key.P384: "ec384", Key.RSA_2048: "rsa2048"}

NO_COMMAND: Final = "has no command for it"


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
        address: str = "127.0.0.1",
        csr: Path | None = None,
        not_after: datetime.datetime | None = None,
        options: Sequence[str] = (),
    ) -> Obtained:
        """Obtain a certificate by http-01, answering at *http_port* of a loopback address."""
        solver = self._http(http_port, address)
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

    async def run_solver(
        self, verb: str, names: Sequence[str], challenge: str, place: Place, options: Sequence[str]
    ) -> Obtained:
        """Run *verb*, answering by *challenge* at *place*."""
        environment: Mapping[str, str] = {}
        if challenge == DNS_01:
            solver, environment = self._dns(place.updates)
        elif challenge == HTTP_01:
            solver = self._http(place.http_port, place.literal)
        else:
            solver = ["--tls", "--tls.port", f"{place.literal}:{place.tls_port}"]
        return await self._obtain(verb, names, solver, environment, None, None, options)

    async def _renew(
        self, names: Sequence[str], solver: list[str], environment: Mapping[str, str]
    ) -> Obtained:
        return await self._obtain("renew", names, solver, environment, None, None, NOW)

    def obtained(self, name: str, *, has_key: bool = True) -> Obtained:
        """Return where the newest certificate for *name* lies, split as certbot splits it."""
        store = self.directory / "store" / "certificates"
        stem = name.replace("*", "_").replace(":", "-")
        fullchain = store / f"{stem}.crt"
        key = store / f"{stem}.key" if has_key else None
        leaf, _, _ = fullchain.read_text("ascii").partition("-----END CERTIFICATE-----\n")
        certificate = store / f"{stem}.leaf.crt"
        certificate.write_text(f"{leaf}-----END CERTIFICATE-----\n", "ascii")
        return Obtained(certificate, store / f"{stem}.issuer.crt", fullchain, key)

    def _domains(self, names: Sequence[str]) -> list[str]:
        return [part for name in names for part in ("--domains", name)]

    def _http(self, port: int, address: str = "127.0.0.1") -> list[str]:
        return ["--http", "--http.port", f"{address}:{port}"]

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


class StockLego(StockClient):
    """lego as one of the stock clients."""

    kind = "lego"
    lacks: ClassVar = {
        Verb.REVOKE_BY_KEY: NO_COMMAND,
        Verb.CONTACT: NO_COMMAND,
        Verb.KEY_CHANGE: NO_COMMAND,
        Verb.DEACTIVATE: NO_COMMAND,
    }

    _lego: Lego | None = None
    _last: tuple[Sequence[str], str] | None = None

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Run ``run``."""
        self._last = (names, challenge)
        self._lego = Lego(
            self.directory,
            self.directory_url,
            self.ca_bundle,
            external_account=self.external_account,
            key_type=KEYS[wish.key],
        )
        options = []
        if wish.profile is not None:
            options += ["--profile", wish.profile]
        if wish.chain_of is not None:
            options += ["--preferred-chain", wish.chain_of]
        if wish.not_after is not None:
            options += ["--not-after", wish.not_after.strftime("%Y-%m-%dT%H:%M:%SZ")]
        if wish.csr is not None:
            port, address = self.place.http_port, self.place.literal
            return await self._lego.run_http(names, http_port=port, address=address, csr=wish.csr)
        return await self._run("run", options)

    async def renew(self) -> Obtained:
        """Run ``renew``, however long the certificate still lasts."""
        return await self._run("renew", NOW)

    async def renew_when_told(self) -> Obtained:
        """Run ``renew`` so that only renewal information can make it due."""
        return await self._run("renew", ["--days", "0", "--no-random-sleep"])

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke as the account."""
        assert self._lego is not None
        assert self._last is not None
        await self._lego.revoke(self._last[0][:1], reason=4)

    async def _run(self, verb: str, options: Sequence[str]) -> Obtained:
        assert self._lego is not None
        assert self._last is not None
        names, challenge = self._last
        return await self._lego.run_solver(verb, names, challenge, self.place, options)
