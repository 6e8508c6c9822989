"""Keys that live on a PKCS#11 token: made there, used there, never brought out.

Speaks to the token's module directly (PKCS#11 v2.40), so that neither an engine of OpenSSL nor
another program has to be there, and no PIN stands in a list of processes.  A key is named by a URI
(RFC 7512) with ``module-path`` and ``pin-source``; a PIN in the URI itself is refused, for the URI
is written down.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from ctypes import Structure, byref, c_char, c_ubyte, c_ulong, c_void_p
from dataclasses import dataclass, field
from typing import Final

from agents import crafting_der as der
from agents.crafting_ports import CraftFault
from agents.crafting_uri import TokenUri, parse_token_uri

__all__ = ["Token"]

MAX_OBJECTS: Final = 2
"""How many keys are looked for under one name: a second one means that the name is not enough."""

ID_BYTES: Final = 16
"""Length of the id that a new key gets, in bytes; drawn at random, it names one key for good."""

_RW, _SERIAL, _USER = 2, 4, 1
_PUBLIC, _PRIVATE = 2, 3
_CLASS, _TOKEN, _IS_PRIVATE, _LABEL, _ID = 0x0, 0x1, 0x2, 0x3, 0x102
_SENSITIVE, _EXTRACTABLE, _DECRYPT, _SIGN, _VERIFY = 0x103, 0x162, 0x105, 0x108, 0x10A
_ENCRYPT, _KEY_TYPE, _MODULUS, _MODULUS_BITS, _EXPONENT = 0x104, 0x100, 0x120, 0x121, 0x122
_EC_PARAMS, _EC_POINT = 0x180, 0x181
_RSA_PAIR, _EC_PAIR, _RSA_SHA256, _ECDSA = 0x0, 0x1040, 0x40, 0x1041
_RSA_TYPE: Final = 0x0
"""What a token calls an RSA key (CKK_RSA of PKCS#11 v2.40)."""

_LOGGED_IN_ALREADY, _INITIALIZED_ALREADY = 0x100, 0x191

_MAX_VALUE: Final = 2 * 1024
"""Most octets that are taken of one value; a modulus of 4096 bits has 512."""

_TRUE, _FALSE = b"\x01", b"\x00"


class _Attribute(Structure):
    _fields_ = (("kind", c_ulong), ("value", c_void_p), ("length", c_ulong))


class _Mechanism(Structure):
    _fields_ = (("kind", c_ulong), ("parameter", c_void_p), ("length", c_ulong))


class _Version(Structure):
    _fields_ = (("major", c_ubyte), ("minor", c_ubyte))


class _TokenInfo(Structure):
    _fields_ = (
        ("label", c_char * 32),
        ("manufacturer", c_char * 32),
        ("model", c_char * 16),
        ("serial", c_char * 16),
        ("flags", c_ulong),
        ("counts", c_ulong * 10),
        ("hardware", _Version),
        ("firmware", _Version),
        ("time", c_char * 16),
    )


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is logged in to, in this process alone."""

    name: str = field(init=False, default="token")
    _library: ctypes.CDLL
    _session: c_ulong

    @classmethod
    def open(cls, text: str) -> Token:
        """Log in to the token that a URI names.

        Raises:
            CraftFault: The URI does not say enough, or the token is not there or refuses the PIN.
        """
        uri = parse_token_uri(text)
        try:
            library = ctypes.CDLL(uri.module)
        except OSError:
            raise CraftFault(f"the token's module {uri.module} cannot be loaded") from None
        _call(library, "C_Initialize", None, but=(_INITIALIZED_ALREADY,))
        session = c_ulong()
        _call(
            library,
            "C_OpenSession",
            _find_slot(library, uri),
            c_ulong(_RW | _SERIAL),
            None,
            None,
            byref(session),
        )
        pin = _read_pin(uri)
        _call(
            library,
            "C_Login",
            session,
            c_ulong(_USER),
            pin,
            c_ulong(len(pin)),
            but=(_LOGGED_IN_ALREADY,),
        )
        return cls(library, session)

    def generate_in(self, text: str, kind: str) -> str:
        """Make a key of that kind and return the URI that names it and no other."""
        uri = parse_token_uri(text)
        identity = secrets.token_bytes(ID_BYTES)
        naming = {_TOKEN: _TRUE, _ID: identity, _LABEL: uri.label.encode()}
        public = {**naming, _VERIFY: _TRUE}
        private = {
            **naming,
            _IS_PRIVATE: _TRUE,
            _SENSITIVE: _TRUE,
            _EXTRACTABLE: _FALSE,
            _SIGN: _TRUE,
        }
        if kind.startswith("rsa-"):
            bits = int(kind.removeprefix("rsa-"))
            public |= {_MODULUS_BITS: _ulong(bits), _EXPONENT: b"\x01\x00\x01", _ENCRYPT: _TRUE}
            private |= {_DECRYPT: _TRUE}
            mechanism = _RSA_PAIR
        else:
            public |= {_EC_PARAMS: der.curve_parameters(kind)}
            mechanism = _EC_PAIR
        handles = c_ulong(), c_ulong()
        wanted = _template(public), _template(private)
        self._call(
            "C_GenerateKeyPair",
            byref(_Mechanism(mechanism, None, 0)),
            *(part for one in wanted for part in (one, c_ulong(len(one)))),
            *(byref(handle) for handle in handles),
        )
        return uri.with_id(identity)

    def spki(self, text: str) -> bytes:
        """Return the public half in DER of the key that a URI names."""
        handle = self._find(text, _PUBLIC)
        if self._is_rsa(handle):
            modulus, exponent = (
                int.from_bytes(self._value(handle, kind), "big") for kind in (_MODULUS, _EXPONENT)
            )
            return der.rsa_spki(modulus, exponent)
        return der.ec_spki(
            self._value(handle, _EC_PARAMS), der.octets_of(self._value(handle, _EC_POINT))
        )

    def sign(self, text: str, message: bytes) -> bytes:
        """Return a signature over *message* in the form that X.509 has it."""
        handle = self._find(text, _PRIVATE)
        if self._is_rsa(handle):
            return self._sign(handle, _RSA_SHA256, message)
        is_384 = der.key_kind_of(self.spki(text)) == "ec-p384"
        digest = (hashlib.sha384 if is_384 else hashlib.sha256)(message).digest()
        pair = self._sign(handle, _ECDSA, digest)
        half = len(pair) // 2
        return der.ecdsa_signature(
            int.from_bytes(pair[:half], "big"), int.from_bytes(pair[half:], "big")
        )

    def request(self, text: str, names: Sequence[str]) -> bytes:
        """Return a certificate request in DER, with an empty subject."""
        public = self.spki(text)
        body = der.request_body(public, names)
        return der.signed(body, der.key_kind_of(public), self.sign(text, body))

    def forget(self, text: str) -> None:
        """Destroy both halves of the key that a URI names by its id; none there is no error."""
        uri = parse_token_uri(text)
        if uri.id is None:
            raise CraftFault("a key that has no id in its URI is not ours to destroy")
        for kind in (_PRIVATE, _PUBLIC):
            for handle in self._search(uri, kind):
                self._call("C_DestroyObject", c_ulong(handle))

    def _find(self, text: str, kind: int) -> int:
        found = self._search(parse_token_uri(text), kind)
        if len(found) != 1:
            raise CraftFault(f"{len(found)} keys on the token where one should have that name")
        return found[0]

    def _search(self, uri: TokenUri, kind: int) -> list[int]:
        wanted = {_CLASS: _ulong(kind)}
        if uri.id is not None:
            wanted[_ID] = uri.id
        if uri.label:
            wanted[_LABEL] = uri.label.encode()
        template = _template(wanted)
        self._call("C_FindObjectsInit", template, c_ulong(len(template)))
        handles, count = (c_ulong * MAX_OBJECTS)(), c_ulong()
        self._call("C_FindObjects", handles, c_ulong(MAX_OBJECTS), byref(count))
        self._call("C_FindObjectsFinal")
        return list(handles)[: count.value]

    def _is_rsa(self, handle: int) -> bool:
        return int.from_bytes(self._value(handle, _KEY_TYPE), "little") == _RSA_TYPE

    def _value(self, handle: int, kind: int) -> bytes:
        buffer = ctypes.create_string_buffer(_MAX_VALUE)
        wanted = _Attribute(kind, ctypes.cast(buffer, c_void_p), _MAX_VALUE)
        self._call("C_GetAttributeValue", c_ulong(handle), byref(wanted), c_ulong(1))
        return buffer.raw[: wanted.length]

    def _sign(self, handle: int, mechanism: int, message: bytes) -> bytes:
        self._call("C_SignInit", byref(_Mechanism(mechanism, None, 0)), c_ulong(handle))
        buffer, length = ctypes.create_string_buffer(_MAX_VALUE), c_ulong(_MAX_VALUE)
        self._call("C_Sign", message, c_ulong(len(message)), buffer, byref(length))
        return buffer.raw[: length.value]

    def _call(self, name: str, *arguments: object) -> None:
        _call(self._library, name, self._session, *arguments)


def _call(library: ctypes.CDLL, name: str, *arguments: object, but: Sequence[int] = ()) -> None:
    try:
        function = getattr(library, name)
    except AttributeError:
        raise CraftFault("what module-path names is no PKCS#11 module") from None
    function.restype = c_ulong
    code = function(*arguments)
    if code and code not in but:
        raise CraftFault(f"the token refused {name} with {code:#x}")


def _find_slot(library: ctypes.CDLL, uri: TokenUri) -> c_ulong:
    count = c_ulong()
    _call(library, "C_GetSlotList", c_ubyte(1), None, byref(count))
    slots = (c_ulong * count.value)()
    _call(library, "C_GetSlotList", c_ubyte(1), slots, byref(count))
    found = []
    for slot in slots:
        info = _TokenInfo()
        _call(library, "C_GetTokenInfo", c_ulong(slot), byref(info))
        label, serial = (
            bytes(one).decode("utf-8", "replace").strip(" \0") for one in (info.label, info.serial)
        )
        if uri.token in ("", label) and uri.serial in ("", serial):
            found.append(slot)
    if len(found) != 1:
        raise CraftFault(f"{len(found)} tokens where the URI should name one")
    return c_ulong(found[0])


def _read_pin(uri: TokenUri) -> bytes:
    try:
        fd = os.open(uri.pin_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CraftFault(f"the PIN in {uri.pin_file} cannot be read: {error.strerror}") from None
    with open(fd, "rb") as file:
        return file.read(256).partition(b"\n")[0].rstrip(b"\r")


def _template(values: Mapping[int, bytes]) -> ctypes.Array[_Attribute]:
    made = (_Attribute * len(values))()
    for place, (kind, value) in zip(made, values.items(), strict=True):
        buffer = ctypes.create_string_buffer(value, len(value))
        place.kind, place.length = kind, len(value)
        place.value = ctypes.cast(buffer, c_void_p)
        _keep(made, buffer)
    return made


def _keep(template: object, buffer: object) -> None:
    """Let *buffer* live as long as the template that points into it."""
    held = template.__dict__.setdefault("held", [])
    held.append(buffer)


def _ulong(number: int) -> bytes:
    return bytes(c_ulong(number))
