"""TXT records set by dynamic update (RFC 2136), signed with TSIG (RFC 8945).

``_acme-challenge`` aliases are followed first, so that the key need only reach one zone that
holds nothing else.  A value is added beside its siblings and removed alone: a name and its
wildcard are answered at the same place at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.lookup import Lookup, NameServer, address_of
from broker.upstreams.placement import PlacedRecord, follow_aliases, parse_name, verify_inside

__all__ = ["DynamicZone", "PlacedRecord", "Rfc2136Settings"]

RECORD_TTL: Final = timedelta(seconds=60)
"""Default lifetime of a record in caches; it stands for some minutes at most."""

UPDATE_TIME: Final = timedelta(seconds=10)
"""Default limit for one update; a server with signed zones may take some seconds."""

ALGORITHMS: Final = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}
"""TSIG algorithms that are used; RFC 8945 §6 retires MD5 and discourages SHA-1."""

_TRY_LATER: Final = frozenset({dns.rcode.SERVFAIL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rfc2136Settings:
    """A name server that takes our updates."""

    server: NameServer
    """The primary server; a host name is allowed."""
    tsig_name: str
    tsig_secret: bytes = field(repr=False)
    """The octets, not the base64 of a BIND key file."""
    tsig_algorithm: str = "hmac-sha256"
    zone: str | None = None
    """The zone to update; None: the server is asked which one a name lies in."""
    resolvers: tuple[NameServer, ...] = ()
    """Resolvers, by address, that find aliases; none: those of the system."""
    ttl: timedelta = RECORD_TTL
    timeout: timedelta = UPDATE_TIME


class DynamicZone:
    """Adds and removes single TXT values."""

    def __init__(self, settings: Rfc2136Settings) -> None:
        """Take the settings; nothing is sent before the first call.

        Raises:
            Broken: The key's name or algorithm, or the zone, cannot be used.
        """
        if settings.tsig_algorithm not in ALGORITHMS:
            raise Broken(
                f"TSIG algorithm '{settings.tsig_algorithm}' is not used, "
                f"expected one of {', '.join(ALGORITHMS)}"
            )
        if not settings.tsig_secret:
            raise Broken(f"TSIG key '{settings.tsig_name}' is empty")
        self._settings = settings
        self._zone = parse_name(settings.zone, "zone") if settings.zone is not None else None
        key_name = parse_name(settings.tsig_name, "TSIG key name")
        algorithm = ALGORITHMS[settings.tsig_algorithm]
        self._key = dns.tsig.Key(key_name, settings.tsig_secret, algorithm)
        self._aliases = Lookup(settings.resolvers)

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Add *value* at *name*, or where its aliases lead, and return where that is.

        Raises:
            Unreachable: A server does not answer now; the value may stand there all the same.
            Broken: The aliases go in a circle, or the server does not let us.
        """
        final = await follow_aliases(self._aliases, parse_name(name, "name"))
        zone = await self._zone_of(final)
        placed = PlacedRecord(zone.to_text(), final.to_text(), value)
        update = self._update(zone)
        seconds = int(self._settings.ttl.total_seconds())
        update.add(final, seconds, dns.rdatatype.TXT, _quoted(value))
        await self._send(update, placed)
        return placed

    async def remove(self, placed: PlacedRecord) -> None:
        """Remove exactly the value that was added; one that is gone already is no error.

        Raises:
            Unreachable: The server does not answer now.
            Broken: The server does not let us.
        """
        update = self._update(parse_name(placed.zone, "zone"))
        update.delete(parse_name(placed.name, "name"), dns.rdatatype.TXT, _quoted(placed.value))
        await self._send(update, placed)

    async def _zone_of(self, name: dns.name.Name) -> dns.name.Name:
        if self._zone is None:
            address = await address_of(self._settings.server)
            primary = NameServer(address, self._settings.server.port)
            return await Lookup((primary,)).zone_of(name)
        verify_inside(name, self._zone)
        return self._zone

    def _update(self, zone: dns.name.Name) -> dns.update.UpdateMessage:
        return dns.update.UpdateMessage(zone, keyring=self._key)

    async def _send(self, update: dns.update.UpdateMessage, placed: PlacedRecord) -> None:
        settings = self._settings
        what = f"update of {placed.name} at {settings.server}"
        address = await address_of(settings.server)
        try:
            # TCP: an update whose answer is lost would be sent again with the same signature.
            answer = await dns.asyncquery.tcp(
                update, address, settings.timeout.total_seconds(), settings.server.port
            )
        except dns.tsig.PeerBadTime as error:
            raise Broken(f"{what} is refused: its clock and ours differ too much") from error
        except (dns.tsig.PeerError, dns.tsig.BadKey) as error:
            raise Broken(
                f"{what} is refused: it does not know TSIG key '{settings.tsig_name}', "
                "or has another secret or algorithm for it"
            ) from error
        except (dns.tsig.BadSignature, dns.tsig.BadTime) as error:
            raise Broken(f"{what} is answered with a signature that does not verify") from error
        except dns.exception.Timeout as error:
            limit = settings.timeout.total_seconds()
            raise Unreachable(f"{what}: no answer within {limit:g} s") from error
        except (OSError, EOFError) as error:
            raise Unreachable(f"{what}: {str(error) or type(error).__name__}") from error
        except dns.exception.DNSException as error:
            raise Broken(f"{what} is answered with nonsense: {error}") from error
        _check_answer(answer, what)


def _check_answer(answer: dns.message.Message, what: str) -> None:
    rcode = answer.rcode()
    if rcode == dns.rcode.NOERROR:
        return
    if rcode in _TRY_LATER:
        raise Unreachable(f"{what} failed: {dns.rcode.to_text(rcode)}")
    # Our own set-up is wrong, so no order of a client may fail for it: not Refused.
    raise Broken(
        f"{what} is refused: {dns.rcode.to_text(rcode)}; "
        "see what the server allows this key to change"
    )


def _quoted(value: str) -> str:
    return f'"{value}"'
