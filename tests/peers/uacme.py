"""uacme, the ACME client in C, and ualpn, its responder for tls-alpn-01."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.peers import process
from tests.peers.answers import web_root, write_nsupdate
from tests.peers.client import Obtained, run_client
from tests.peers.installation import installed
from tests.peers.stock import HTTP_01, PLAIN, TLS_ALPN_01, Key, Place, StockClient, Verb, Wish

KEYS: Final = {
    Key.P256: ("--type", "EC", "--bits", "256"),
    Key.P384: ("--type", "EC", "--bits", "384"),
    Key.RSA_2048: ("--type", "RSA", "--bits", "2048"),
}

SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"

TRUSTING: Final = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
"""uacme trusts what the system trusts and nothing else, so it is given a system of its own."""

HOOK: Final = """#!/bin/sh
# METHOD TYPE IDENT TOKEN AUTH; a challenge of another type is declined by the status.
[ "$2" = {challenge} ] || exit 1
case "$2:$1" in
http-01:begin) printf %s "$5" > {www}/"$4" ;;
http-01:*) rm -f {www}/"$4" ;;
dns-01:begin) {records} "_acme-challenge.$3" add "$5" ;;
dns-01:*) {records} "_acme-challenge.$3" delete "$5" ;;
tls-alpn-01:begin) [ "$(echo "auth $3 $5" | {ualpn} -s {socket})" = OK ] ;;
tls-alpn-01:*) [ "$(echo "unauth $3" | {ualpn} -s {socket})" = OK ] ;;
esac
"""


class Ualpn(process.Peer):
    """ualpn in server mode; it hands every other connection to a port where nobody listens."""

    name = "ualpn"

    def __init__(self, tmp: Path, place: Place) -> None:
        super().__init__(tmp)
        self._place = place
        self.socket = tmp / "ualpn.sock"

    def command(self) -> Sequence[str]:
        """Return the command line; this peer has no configuration file."""
        bind = f"{self._place.address}@{self._place.tls_port}"
        files = ["--pidfile", str(self.directory / "pid"), "--sock", str(self.socket)]
        backend = f"127.0.0.1@{process.free_port()}"
        program = str(installed("ualpn"))
        return [program, "--bind", bind, "--connect", backend, "--num-workers", "1", *files]

    def is_ready(self) -> bool:
        """See that its socket is there."""
        return self.socket.exists()


class Uacme(StockClient):
    """One uacme; run it once at a time."""

    kind = "uacme"
    lacks: ClassVar = {
        Verb.PROFILE: "not in this version",
        Verb.NOT_AFTER: "has no option for it",
        Verb.RENEWAL_INFO: "not in this version",
    }

    _last: tuple[Sequence[str], str, Wish] | None = None
    _is_registered = False

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Register where needed, and issue for *names* or the CSR."""
        self._last = (names, challenge, wish)
        if not self._is_registered:
            binding = []
            if self.external_account is not None:
                kid, key = self.external_account.kid, self.external_account.hmac_b64url
                binding = ["--eab", f"{kid}:{key}"]
            await self._run(*binding, "--yes", "new", "uacme@example.com")
            self._is_registered = True
        return await self._issue()

    async def renew(self) -> Obtained:
        """Issue again with ``--force``."""
        return await self._issue("--force")

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke as the account; uacme renames the file that it was given."""
        await self._run("revoke", str(self._copy(obtained)))

    async def revoke_by_key(self, obtained: Obtained) -> None:
        """Revoke with the certificate's key, account and configuration being of no use."""
        await self._run("revoke", str(self._copy(obtained)), str(obtained.key))

    async def update_contact(self, address: str) -> None:
        """Replace the contact."""
        await self._run("update", address)

    async def change_key(self) -> None:
        """Roll the account key over."""
        await self._run("newkey")

    async def deactivate(self) -> None:
        """Give the account up."""
        await self._run("deactivate")

    def _copy(self, obtained: Obtained) -> Path:
        copy = self.directory / "to-revoke.pem"
        copy.write_bytes(obtained.certificate.read_bytes())
        return copy

    async def _issue(self, *options: str) -> Obtained:
        assert self._last is not None
        names, challenge, wish = self._last
        async with self._answering(challenge) as hook:
            arguments = [*options, *KEYS[wish.key], "--hook", str(hook)]
            if wish.chain_of is not None:
                arguments += ["--alternate", "1"]
            subject = list(names)
            if wish.csr is not None:
                # uacme writes the certificate beside the request.
                subject = [shutil.copyfile(wish.csr, str(self.directory / "request.pem"))]
            await self._run(*arguments, "issue", *subject)
        if wish.csr is not None:
            return self._split(self.directory / "request-cert.pem", None)
        name = names[0].removeprefix("*.")
        made = self.directory / "conf" / "private" / name / "key.pem"
        # GnuTLS leaves leading zeros of an EC key away, which other libraries refuse to read.
        key = self.directory / "key.pem"
        again = ["openssl", "pkey", "-in", str(made), "-out", str(key)]
        await run_client(again, directory=self.directory, environment={})
        return self._split(self.directory / "conf" / name / "cert.pem", key)

    def _split(self, fullchain: Path, key: Path | None) -> Obtained:
        end = "-----END CERTIFICATE-----\n"
        leaf, _, chain = fullchain.read_text("ascii").partition(end)
        where = Obtained(
            certificate=fullchain.with_suffix(".leaf.pem"),
            chain=fullchain.with_suffix(".chain.pem"),
            fullchain=fullchain,
            key=key,
        )
        where.certificate.write_text(leaf + end, "ascii")
        where.chain.write_text(chain, "ascii")
        return where

    @contextlib.asynccontextmanager
    async def _answering(self, challenge: str) -> AsyncIterator[Path]:
        www = self.directory / "www"
        ualpn = Ualpn(self.directory / "ualpn", self.place)
        hook = self.directory / "hook"
        records = write_nsupdate(self.directory / "dns", self.place.updates)
        values = {"www": www, "records": records, "socket": ualpn.socket}
        quoted = {name: shlex.quote(str(value)) for name, value in values.items()}
        program = shlex.quote(str(installed("ualpn")))
        hook.write_text(HOOK.format(challenge=challenge, ualpn=program, **quoted), "ascii")
        hook.chmod(0o755)
        async with contextlib.AsyncExitStack() as stack:
            if challenge == HTTP_01:
                await stack.enter_async_context(web_root(self.place, www))
            if challenge == TLS_ALPN_01:
                await stack.enter_async_context(ualpn)
            yield hook

    async def _run(self, *arguments: str) -> str:
        trusting = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
        trusting += ["sh", "-c", TRUSTING, "sh", str(self.ca_bundle), SYSTEM_BUNDLE]
        command = [*trusting, str(installed("uacme")), "--verbose", "--verbose"]
        command += ["--acme-url", self.directory_url, "--confdir", str(self.directory / "conf")]
        run = await run_client([*command, *arguments], directory=self.directory, environment={})
        return run.output
