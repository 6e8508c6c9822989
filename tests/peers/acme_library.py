"""certbot's ``acme`` library, driven by a small client of its own in its own environment."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.peers import authority
from tests.peers.answers import write_nsupdate
from tests.peers.client import ClientFailed, Obtained, is_address, run_client
from tests.peers.installation import installed
from tests.peers.stock import PLAIN, TLS_ALPN_01, StockClient, Verb, Wish

SCRIPT: Final = Path(__file__).with_name("acme_library_client.py")


class AcmeLibrary(StockClient):
    """One account of a client made with the library; run it once at a time."""

    kind = "acme library"
    lacks: ClassVar = {
        TLS_ALPN_01: "taken out of the library",
        Verb.KEY_CHANGE: "has no call for it",
        Verb.NOT_AFTER: "its order has no such member",
    }

    _last: tuple[Sequence[str], str, Wish] | None = None

    async def obtain(self, names: Sequence[str], challenge: str, wish: Wish = PLAIN) -> Obtained:
        """Register where needed, order, answer, finalize."""
        self._last = (names, challenge, wish)
        records = write_nsupdate(self.directory / "dns", self.place.updates)
        await self._ask(
            "obtain",
            names=[name for name in names if not is_address(name)],
            addresses=[name for name in names if is_address(name)],
            challenge=challenge,
            key=wish.key,
            csr=str(wish.csr) if wish.csr else None,
            profile=wish.profile,
            chain_of=wish.chain_of,
            address=self.place.address,
            http_port=self.place.http_port,
            records=str(records),
        )
        folder = self.directory
        return Obtained(
            certificate=folder / "cert.pem",
            chain=folder / "chain.pem",
            fullchain=folder / "fullchain.pem",
            key=None if wish.csr else folder / "key.pem",
        )

    async def renew(self) -> Obtained:
        """Obtain the same once more, which is all that renewing means to the library."""
        assert self._last is not None
        return await self.obtain(*self._last)

    async def renew_when_told(self) -> Obtained:
        """Ask for the time, and renew if it has come."""
        due = (await self._ask("renewal_time"))["due"]
        if due is None or datetime.datetime.fromisoformat(due) > authority.real_now():
            raise ClientFailed(f"renewal is due at {due}, not yet", "")
        return await self.renew()

    async def revoke(self, obtained: Obtained) -> None:
        """Revoke as the account."""
        await self._ask("revoke", certificate=str(obtained.certificate))

    async def revoke_by_key(self, obtained: Obtained) -> None:
        """Revoke with the certificate's key."""
        key = str(obtained.key)
        await self._ask("revoke", certificate=str(obtained.certificate), certificate_key=key)

    async def update_contact(self, address: str) -> None:
        """Replace the contact."""
        await self._ask("update_contact", contact=address)

    async def deactivate(self) -> None:
        """Give the account up."""
        await self._ask("deactivate")

    async def _ask(self, verb: str, **more: Any) -> Any:
        external = self.external_account
        request = {
            "verb": verb,
            "directory": str(self.directory),
            "url": self.directory_url,
            "ca_bundle": str(self.ca_bundle),
            "eab": [external.kid, external.hmac_b64url] if external else None,
            **more,
        }
        file = self.directory / "request.json"
        file.write_text(json.dumps(request), "utf-8")
        command = ["sh", "-c", 'exec "$0" "$1" < "$2"']
        command += [str(installed("acme")), str(SCRIPT), str(file)]
        run = await run_client(command, directory=self.directory, environment={})
        return json.loads(run.output.splitlines()[-1])
