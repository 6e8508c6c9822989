"""dehydrated, the ACME client in Bash, with a configuration and a store for every instance."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Final

from tests.peers.answers import alpn_root, web_root, write_nsupdate
from tests.peers.client import Obtained, run_client
from tests.peers.installation import installed
from tests.peers.stock import DNS_01, HTTP_01, PLAIN, TLS_ALPN_01, Key, StockClient, Verb, Wish

ALGORITHMS: Final = {Key.P256: "prime256v1", Key.P384: "secp384r1", Key.RSA_2048: "rsa"}

HOOK: Final = """#!/bin/sh
# Sets and takes away dns-01 records; other challenges are files that others serve.
case "$1" in
deploy_challenge) action=add ;;
clean_challenge) action=delete ;;
*) exit 0 ;;
esac
[ "$CHALLENGETYPE" = dns-01 ] || exit 0
exec {records} "_acme-challenge.$2" "$action" "$4"
"""


class Dehydrated(StockClient):
    """One dehydrated; run it once at a time."""

    kind = "dehydrated"
    lacks: ClassVar = {
        Verb.REVOKE_BY_KEY: "looks for an account of that key first and stops where there is none",
        Verb.KEY_CHANGE: "has no command for it",
        Verb.PROFILE: "not in this version",
        Verb.NOT_AFTER: "has no option for it",
        Verb.RENEWAL_INFO: "not in this version",
        Verb.IPV4: "orders DNS names alone",
        Verb.IPV6: "orders DNS names alone",
    }

    contact = "dehydrated@example.com"
    _last: tuple[Sequence[str], str, Wish] | None = None

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Register where needed, and sign for *names*."""
        self._last = (names, challenge, wish)
        self._write_config(challenge, wish)
        await self._run("--register", "--accept-terms")
        return await self._sign()

    async def renew(self) -> Obtained:
        """Sign again with ``--force``."""
        return await self._sign("--force")

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke as the account; dehydrated renames the file that it was given."""
        copy = self.directory / "to-revoke.pem"
        copy.write_bytes(obtained.certificate.read_bytes())
        await self._run("--revoke", str(copy))

    async def update_contact(self, address: str) -> None:
        """Write the address into the configuration and let dehydrated tell the server."""
        self.contact = address
        assert self._last is not None
        self._write_config(*self._last[1:])
        await self._run("--account")

    async def deactivate(self) -> None:
        """Give the account up."""
        await self._run("--deactivate")

    async def _sign(self, *options: str) -> Obtained:
        assert self._last is not None
        names, challenge, wish = self._last
        async with self._answering(challenge):
            if wish.csr is not None:
                return await self._sign_csr(wish)
            named = ["--domain", " ".join(names), "--alias", "certificate"]
            await self._run("--cron", *named, *options)
        store = self.directory / "certs" / "certificate"
        pem = [store / f"{part}.pem" for part in ("cert", "chain", "fullchain", "privkey")]
        return Obtained(*pem)

    async def _sign_csr(self, wish: Wish) -> Obtained:
        run = await self._run("--signcsr", str(wish.csr))
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        blocks = [f"{begin}{part.partition(end)[0]}{end}\n" for part in run.split(begin)[1:]]
        where = Obtained(
            certificate=self.directory / "csr-cert.pem",
            chain=self.directory / "csr-chain.pem",
            fullchain=self.directory / "csr-fullchain.pem",
            key=None,
        )
        where.certificate.write_text(blocks[0], "ascii")
        where.chain.write_text("".join(blocks[1:]), "ascii")
        where.fullchain.write_text("".join(blocks), "ascii")
        return where

    @contextlib.asynccontextmanager
    async def _answering(self, challenge: str) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if challenge == HTTP_01:
                await stack.enter_async_context(web_root(self.place, self.directory / "www"))
            if challenge == TLS_ALPN_01:
                await stack.enter_async_context(alpn_root(self.place, self.directory / "alpn"))
            yield

    async def _run(self, *arguments: str) -> str:
        command = [str(installed("dehydrated")), *arguments]
        command += ["--config", str(self.directory / "config")]
        run = await run_client(command, directory=self.directory, environment={})
        return run.output

    def _write_config(self, challenge: str, wish: Wish) -> None:
        hook = self.directory / "hook"
        records = write_nsupdate(self.directory / "dns", self.place.updates)
        hook.write_text(HOOK.format(records=shlex.quote(str(records))), "ascii")
        hook.chmod(0o755)
        for folder in ("www", "alpn"):
            (self.directory / folder).mkdir(exist_ok=True)
        settings = {
            "CA": self.directory_url,
            "CHALLENGETYPE": challenge,
            "BASEDIR": str(self.directory),
            "WELLKNOWN": str(self.directory / "www"),
            "ALPNCERTDIR": str(self.directory / "alpn"),
            "CURL_OPTS": f"--cacert {self.ca_bundle} --noproxy *",
            "KEY_ALGO": ALGORITHMS[wish.key],
            "KEYSIZE": "2048",
            "CONTACT_EMAIL": self.contact,
            # Version 0.7 compares with what OpenSSL 3 prints, which has more than the name.
            "PREFERRED_CHAIN": f"issuer=CN = {wish.chain_of}" if wish.chain_of else "",
        }
        if challenge == DNS_01:
            settings["HOOK"] = str(hook)
        if self.external_account is not None:
            settings["EAB_KID"] = self.external_account.kid
            settings["EAB_HMAC_KEY"] = self.external_account.hmac_b64url
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        (self.directory / "config").write_text("".join(lines), "ascii")
