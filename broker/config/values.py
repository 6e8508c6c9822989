"""The kinds of values that stand in the configuration, each read strictly.

A value that is refused is told what was expected; a secret that should have been a reference is
refused without being repeated.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from broker.issuance.errors import Broken
from broker.protocol.chain_choice import parse_chain_wish

__all__ = [
    "AbsolutePath",
    "Address",
    "CaaIdentity",
    "ChainWish",
    "Endpoint",
    "EndpointText",
    "ExternalUrl",
    "HttpUrl",
    "HttpsUrl",
    "KeyStoreText",
    "MountText",
    "Network",
    "OwnName",
    "ResolverText",
    "Secret",
    "SecretRef",
    "VaultKeyText",
]

MAX_SECRET_BYTES: Final = 64 * 1024
"""Largest secret that is read from a file, in bytes; the longest we know are PEM keys of 3 KiB."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_ENDPOINT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", re.ASCII)
_VAULT_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_VAULT_PATH: Final = rf"{_VAULT_PART}(?:/{_VAULT_PART})*"
_VAULT_VALUE: Final = re.compile(rf"{_VAULT_PATH}/{_VAULT_PART}#{_VAULT_PART}", re.ASCII)
_MOUNT: Final = re.compile(_VAULT_PATH, re.ASCII)
_VAULT_KEY: Final = re.compile(rf"({_VAULT_PATH})/({_VAULT_PART})", re.ASCII)
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret lies; never the secret itself."""

    scheme: Literal["file", "env", "vault"]
    target: str
    """An absolute path, the name of a variable, or ``mount/path#field``."""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}"

    def resolve(self) -> bytes:
        """Return the secret, without the line break at its end that editors leave.

        Raises:
            Broken: It is not there, empty or too large; a person has to see to it.
        """
        if self.scheme == "vault":
            raise Broken(f"secret {self} lies in Vault and cannot be read here")
        secret = self._from_file() if self.scheme == "file" else self._from_environment()
        secret = secret.removesuffix(b"\n").removesuffix(b"\r")
        if not secret:
            raise Broken(f"secret {self} is empty")
        return secret

    def _from_file(self) -> bytes:
        try:
            with Path(self.target).open("rb") as file:
                secret = file.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise Broken(f"secret {self} cannot be read: {reason}") from error
        if len(secret) > MAX_SECRET_BYTES:
            raise Broken(f"secret {self} is larger than the limit of {MAX_SECRET_BYTES} bytes")
        return secret

    def _from_environment(self) -> bytes:
        value = os.environ.get(self.target)
        if value is None:
            raise Broken(f"secret {self} is not set in the environment")
        return os.fsencode(value)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, by name or address, and a port."""

    host: str
    port: int = field(default=0)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _read_secret(value: object) -> SecretRef:
    # Whatever is refused here may be the secret itself, so no message repeats it.
    expected = "expected a reference such as 'file:/etc/penstock/key.pass' or 'env:NAME'"
    if isinstance(value, SecretRef):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{expected}; what stands here is not shown")
    scheme, _, target = value.partition(":")
    if scheme == "file":
        if not target.startswith("/"):
            raise ValueError("a 'file:' reference has no absolute path, expected 'file:/…'")
        return SecretRef("file", target)
    if scheme == "env":
        if _ENV_NAME.fullmatch(target) is None:
            raise ValueError("an 'env:' reference has no name of an environment variable")
        return SecretRef("env", target)
    if scheme == "vault":
        if _VAULT_VALUE.fullmatch(target) is None:
            raise ValueError(
                "a 'vault:' reference is not of the form 'vault:MOUNT/PATH#FIELD', "
                "such as 'vault:kv/penstock/le-eab#mac_key'"
            )
        return SecretRef("vault", target)
    raise ValueError(f"{expected}; what stands here is not shown, for it may be the secret")


def _read_mount(value: object) -> str:
    if not isinstance(value, str) or _MOUNT.fullmatch(value) is None:
        raise ValueError(
            "expected the path of a mount such as 'transit-penstock', without '/' at its ends"
        )
    return value


def _read_vault_key(value: object) -> str:
    if not isinstance(value, str) or _VAULT_KEY.fullmatch(value) is None:
        raise ValueError("expected mount and name of a key such as 'transit-penstock/sealing'")
    return value


def _read_key_store(value: object) -> str:
    if value == "file":
        return "file"
    scheme, _, mount = value.partition(":") if isinstance(value, str) else ("", "", "")
    if scheme != "vault" or _MOUNT.fullmatch(mount) is None:
        raise ValueError("expected 'file', or a transit mount such as 'vault:transit-penstock'")
    return f"vault:{mount}"


def _read_endpoint(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected host and port such as '127.0.0.1:8443' or '[::1]:8443'")
    port = int(match[3])
    if port > 65_535:
        raise ValueError(f"port {port} is beyond 65535")
    return Endpoint(match[1] or match[2], port)


def _read_resolver(value: object) -> Endpoint:
    endpoint = _read_endpoint(value)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        # Whoever would look the name up is the one that is being configured.
        raise ValueError("expected a name server's address such as '10.0.0.53:53'") from None
    return endpoint


def _read_path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("expected an absolute path such as '/etc/penstock/tls.crt'")
    return Path(value)


def _read_network(value: object) -> IpNetwork:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a network such as '10.0.0.0/8'")
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(
            f"'{value[:64]}' is no network such as '10.0.0.0/8', with its host bits zero"
        ) from None


def _read_address(value: object) -> IpAddress:
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return value
    try:
        return ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("expected an IP address such as '10.0.0.53'") from None


def _read_url(value: object, schemes: tuple[str, ...]) -> str:
    shown = " or ".join(f"'{scheme}://…'" for scheme in schemes)
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise ValueError(f"expected a URL {shown}")
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.hostname or " " in value:
        raise ValueError(f"expected a URL {shown}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL here holds no user name and no password")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the URL's port is no number from 0 to 65535") from None
    return value


def _read_external_url(value: object) -> str:
    url = _read_url(value, ("https",))
    parts = urlsplit(url)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("external_url has a query or a fragment, expected none")
    if parts.path.endswith("/"):
        raise ValueError(f"external_url ends with '/', expected '{url.rstrip('/')}'")
    if parts.netloc != parts.netloc.lower() or parts.port == 443:
        # Clients sign the URL as text: two spellings of it would be two different URLs.
        raise ValueError("external_url is not in its plain form: lower case, no port 443")
    if any(part in {".", "..", ""} for part in parts.path.split("/")[1:]) or "%" in parts.path:
        raise ValueError("external_url has a path with '.', '..', '//' or '%'")
    return url


def _read_chain_wish(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected the common name or the SHA-256 fingerprint of an issuer")
    return parse_chain_wish(value)


def _read_caa_identity(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", value):
        raise ValueError("expected a domain name in lower case such as 'pki.corp.example'")
    return value


def _read_own_name(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        pass
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not isinstance(value, str) or not re.fullmatch(rf"{label}(\.{label})*", value):
        raise ValueError("expected a host's name in lower case, or its address") from None
    return value


def _text(pattern: str | None, *examples: str) -> WithJsonSchema:
    schema: dict[str, object] = {"type": "string", "examples": list(examples)}
    return WithJsonSchema(schema | ({"pattern": pattern} if pattern else {}))


_as_text = PlainSerializer(str, return_type=str)

Secret = Annotated[
    SecretRef,
    PlainValidator(_read_secret),
    _as_text,
    _text("^(file:/.+|env:[A-Za-z_][A-Za-z0-9_]*|vault:.+/.+#.+)$", "file:/etc/penstock/key.pass"),
]
"""A reference to a secret."""

EndpointText = Annotated[
    Endpoint, PlainValidator(_read_endpoint), _as_text, _text(None, "127.0.0.1:8443")
]
"""Host and port."""

ResolverText = Annotated[
    Endpoint, PlainValidator(_read_resolver), _as_text, _text(None, "10.0.0.53:53")
]
"""A name server: its address and port."""

AbsolutePath = Annotated[Path, PlainValidator(_read_path), _as_text, _text("^/", "/etc/penstock")]
"""A path that means the same wherever the program was started."""

Network = Annotated[IpNetwork, PlainValidator(_read_network), _as_text, _text(None, "10.0.0.0/8")]
"""A network of addresses."""

Address = Annotated[IpAddress, PlainValidator(_read_address), _as_text, _text(None, "10.0.0.53")]
"""An IP address."""

HttpsUrl = Annotated[
    str,
    PlainValidator(lambda value: _read_url(value, ("https",))),
    _text("^https://", "https://ca.example/directory"),
]
"""A URL that is reached over TLS."""

HttpUrl = Annotated[
    str,
    PlainValidator(lambda value: _read_url(value, ("http", "https"))),
    _text("^https?://", "http://proxy.corp.example:3128"),
]
"""A URL."""

ExternalUrl = Annotated[
    str,
    PlainValidator(_read_external_url),
    _text("^https://", "https://acme.corp.example"),
]
"""The URL under which clients reach the broker."""

MountText = Annotated[str, PlainValidator(_read_mount), _text(None, "transit-penstock")]
"""The path of a secrets engine or an auth method in Vault."""

VaultKeyText = Annotated[
    str, PlainValidator(_read_vault_key), _text(None, "transit-penstock/penstock.sealing")
]
"""A transit key: its mount and its name."""

KeyStoreText = Annotated[
    str, PlainValidator(_read_key_store), _text("^(file|vault:.+)$", "vault:transit-penstock")
]
"""Where keys are kept: `file`, or `vault:` and a transit mount."""

CaaIdentity = Annotated[str, PlainValidator(_read_caa_identity), _text(None, "pki.corp.example")]
"""A CA's name as CAA records have it (RFC 8659 §4.2)."""

OwnName = Annotated[str, PlainValidator(_read_own_name), _text(None, "agents.corp.example")]
"""A name or an address by which the broker itself is reached."""

ChainWish = Annotated[str, PlainValidator(_read_chain_wish), _text(None, "Corp Root G1")]
"""Where a chain should lead: an issuer's common name, or a SHA-256 fingerprint."""
