"""The URI that names a key on a token (RFC 7512).  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, unquote_to_bytes

from agents.crafting_ports import TOKEN_SCHEME, CraftFault

__all__ = ["TokenUri", "parse_token_uri"]


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What a URI says of a token and of one key on it."""

    module: str
    pin_file: str
    token: str = ""
    serial: str = ""
    label: str = ""
    id: bytes | None = None

    def with_id(self, identity: bytes) -> str:
        """Return the URI of the key with that id, in full."""
        return replace(self, id=identity).text()

    def text(self) -> str:
        """Return the URI."""
        path = [
            f"{name}={quote(value, safe='')}"
            for name, value in (
                ("token", self.token),
                ("serial", self.serial),
                ("object", self.label),
            )
            if value
        ]
        if self.id is not None:
            path.append("id=" + "".join(f"%{octet:02X}" for octet in self.id))
        module, pin = quote(self.module, safe="/"), quote(self.pin_file, safe="/")
        return f"{TOKEN_SCHEME}{';'.join(path)}?module-path={module}&pin-source=file:{pin}"


def parse_token_uri(text: str) -> TokenUri:
    """Return what a URI says.

    Raises:
        CraftFault: It names no module or no file with the PIN, holds the PIN itself, or says
            something that we do not know.
    """
    if not text.startswith(TOKEN_SCHEME):
        raise CraftFault("a key on a token is named by a URI that begins with pkcs11:")
    path, _, query = text.removeprefix(TOKEN_SCHEME).partition("?")
    named = _members(path, ";") | _members(query, "&")
    if "pin-value" in named:
        raise CraftFault("the token's URI holds a PIN; name a file by pin-source instead")
    unknown = set(named) - {"token", "serial", "object", "id", "type", "module-path", "pin-source"}
    if unknown:
        raise CraftFault(f"the token's URI has {min(unknown)}, which we do not know")
    source = unquote(named.get("pin-source", ""))
    module = unquote(named.get("module-path", ""))
    if not module.startswith("/") or not source.removeprefix("file:").startswith("/"):
        raise CraftFault("the token's URI needs module-path=/… and pin-source=file:/…")
    return TokenUri(
        module=module,
        pin_file=source.removeprefix("file:"),
        token=unquote(named.get("token", "")),
        serial=unquote(named.get("serial", "")),
        label=unquote(named.get("object", "")),
        id=unquote_to_bytes(named["id"]) if "id" in named else None,
    )


def _members(text: str, separator: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in text.split(separator) if one)
    return {name: value for name, _, value in pairs}
