"""Apache httpd with mod_md, the web server's own ACME client."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.peers import process
from tests.peers.answers import write_nsupdate
from tests.peers.client import RUN_SECONDS, ClientFailed, Obtained
from tests.peers.installation import installed
from tests.peers.stock import DNS_01, PLAIN, TLS_ALPN_01, Key, Place, StockClient, Verb, Wish

MODULES: Final = Path("/usr/lib/apache2/modules")

KEYS: Final = {Key.P256: "secp256r1", Key.P384: "secp384r1", Key.RSA_2048: "RSA 2048"}

LOOK_SECONDS: Final = 0.2
"""Pause between two looks at mod_md's store."""

NO_COMMAND: Final = "a module without a command for it"

UNPRIVILEGED: Final = ("unshare", "--user", "--map-user=33", "--map-group=33")
"""A server started by root serves as somebody else, who may not look into a test's directory.

In a namespace of its own it is somebody else from the start, and the directory is its own.
"""

CONFIG: Final = """\
ServerRoot "{directory}"
ServerName localhost
PidFile "{directory}/httpd.pid"
Mutex file:{directory} default
ErrorLog /dev/stderr
LogLevel warn md:debug
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule md_module {modules}/mod_md.so
Listen {literal}:{http_port}
Listen {literal}:{tls_port} https
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
SSLSessionCache none
Protocols {alpn}http/1.1
MDStoreDir "{directory}/md"
MDCertificateAuthority {url}
MDCACertificateFile "{bundle}"
MDCertificateAgreement accepted
MDContactEmail {contact}
MDPortMap http:{http_port} https:{tls_port}
MDCAChallenges {challenge}
MDPrivateKeys {key}
MDRenewMode always
MDRenewWindow {window}
MDRenewViaARI {ari}
MDActivationDelay 0s
MDCheckInterval 1s
MDInitialDelay 0s
MDRetryDelay 1s
MDMessageCmd /bin/true
{more}
MDomain {names}
<VirtualHost {literal}:{tls_port}>
    ServerName {first}
    {aliases}
    SSLEngine on
    DocumentRoot "{directory}/www"
</VirtualHost>
<VirtualHost {literal}:{http_port}>
    ServerName {first}
    {aliases}
    DocumentRoot "{directory}/www"
</VirtualHost>
"""

DNS_HOOK: Final = """#!/bin/sh
# setup|teardown NAME VALUE
case "$1" in setup) action=add ;; *) action=delete ;; esac
exec {records} "_acme-challenge.$2" "$action" "$3"
"""


class Httpd(process.Peer):
    """An httpd on loopback with one managed domain."""

    name = "apache2"

    def __init__(self, tmp: Path, place: Place, config: str) -> None:
        super().__init__(tmp)
        self._place = place
        self._config = config

    def command(self) -> Sequence[str]:
        """Write httpd.conf and return the command line."""
        for folder in ("www", "md"):
            (self.directory / folder).mkdir(exist_ok=True)
        self.write(self._config)
        prefix = UNPRIVILEGED if os.geteuid() == 0 else ()
        config = str(self.directory / "httpd.conf")
        return [*prefix, str(installed("apache2")), "-D", "FOREGROUND", "-f", config]

    def write(self, config: str) -> None:
        """Write the configuration that the next start or restart reads."""
        (self.directory / "httpd.conf").write_text(config, "ascii")

    def restart(self) -> None:
        """Restart gracefully, which is when mod_md takes new certificates into use."""
        os.kill(int((self.directory / "httpd.pid").read_text()), signal.SIGUSR1)

    def is_ready(self) -> bool:
        """See that it listens; behind the TLS port there is no certificate yet."""
        is_up = (self.directory / "httpd.pid").exists()
        return is_up and process.is_listening(self._place.http_port, self._place.address)


class ModMd(StockClient):
    """One httpd with its own account and store; run it once at a time."""

    kind = "mod_md"
    lacks: ClassVar = {
        Verb.REVOKE: NO_COMMAND,
        Verb.REVOKE_BY_KEY: NO_COMMAND,
        Verb.KEY_CHANGE: NO_COMMAND,
        Verb.DEACTIVATE: NO_COMMAND,
        Verb.CONTACT: "an address that changes is not sent to the account",
        Verb.CSR: "makes its keys itself",
        Verb.NOT_AFTER: "has no directive for it",
        Verb.CHAIN: "has no directive for it",
        Verb.IPV4: "manages DNS names alone",
        Verb.IPV6: "manages DNS names alone",
    }

    _last: tuple[Sequence[str], str, Wish] | None = None
    _server: Httpd | None = None

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Start with one managed domain, and wait until its certificate is in use."""
        self._last = (names, challenge, wish)
        return await self._run(None, window="33%", ari="off")

    async def renew(self) -> Obtained:
        """Start again with a window that is longer than any certificate lives."""
        return await self._run(self._files()[0].read_bytes(), window="4000d", ari="off")

    async def renew_when_told(self) -> Obtained:
        """Start again with a window of a minute, so that only renewal information renews."""
        return await self._run(self._files()[0].read_bytes(), window="1mi", ari="on")

    async def close(self) -> None:
        """End the server."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)

    async def _run(self, before: bytes | None, **settings: str) -> Obtained:
        server = Httpd(self.directory, self.place, self._config(**settings))
        self._server = server
        server.log_file.unlink(missing_ok=True)
        await asyncio.to_thread(server.start)
        try:
            await self._staged(server)
            # Not due again, or mod_md would go on renewing.
            server.write(self._config(window="33%", ari="off"))
            server.restart()
            return await self._stored(server, before)
        finally:
            await self.close()

    async def _staged(self, server: Httpd) -> None:
        """Wait until mod_md says that a restart would put a certificate into use."""
        await self._see(server, lambda: "has been setup" in server.log_text())

    async def _stored(self, server: Httpd, before: bytes | None) -> Obtained:
        certificate, key = self._files()

        def is_new() -> bool:
            return certificate.exists() and key.exists() and certificate.read_bytes() != before

        await self._see(server, is_new)
        end = "-----END CERTIFICATE-----\n"
        leaf, _, chain = certificate.read_text("ascii").partition(end)
        where = Obtained(
            certificate=self.directory / "cert.pem",
            chain=self.directory / "chain.pem",
            fullchain=self.directory / "fullchain.pem",
            key=self.directory / "key.pem",
        )
        where.certificate.write_text(leaf + end, "ascii")
        where.chain.write_text(chain.lstrip("\n"), "ascii")
        where.fullchain.write_text(leaf + end + chain, "ascii")
        shutil.copyfile(key, self.directory / "key.pem")
        return where

    async def _see(self, server: Httpd, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + RUN_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                log = server.log_text()
                raise ClientFailed(f"no certificate in time\n{process.tail(log, 60)}", log)
            await asyncio.sleep(LOOK_SECONDS)

    def _files(self) -> tuple[Path, Path]:
        """Return where certificate and key lie; the names tell the kind of key."""
        assert self._last is not None
        names, _, wish = self._last
        folder = self.directory / "md" / "domains" / names[0]
        stem = "" if wish.key is Key.RSA_2048 else f".{KEYS[wish.key]}"
        return folder / f"pubcert{stem}.pem", folder / f"privkey{stem}.pem"

    def _config(self, *, window: str, ari: str) -> str:
        assert self._last is not None
        names, challenge, wish = self._last
        more = []
        if challenge == DNS_01:
            hook = self.directory / "dns-hook"
            records = write_nsupdate(self.directory / "dns", self.place.updates)
            hook.write_text(DNS_HOOK.format(records=shlex.quote(str(records))), "ascii")
            hook.chmod(0o755)
            more.append(f"MDChallengeDns01 {hook}")
        if self.external_account is not None:
            kid, key = self.external_account.kid, self.external_account.hmac_b64url
            more.append(f"MDExternalAccountBinding {kid} {key}")
        if wish.profile is not None:
            more += [f"MDProfile {wish.profile}", "MDProfileMandatory on"]
        aliases = f"ServerAlias {' '.join(names[1:])}" if names[1:] else ""
        return CONFIG.format(
            directory=self.directory,
            modules=MODULES,
            literal=self.place.literal,
            http_port=self.place.http_port,
            tls_port=self.place.tls_port,
            alpn="acme-tls/1 " if challenge == TLS_ALPN_01 else "",
            url=self.directory_url,
            bundle=self.ca_bundle,
            contact="mod_md@example.com",
            challenge=challenge,
            key=KEYS[wish.key],
            window=window,
            ari=ari,
            more="\n".join(more),
            names=" ".join(names),
            first=names[0],
            aliases=aliases,
        )
