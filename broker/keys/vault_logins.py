"""Logging in to Vault, by each method; runs in a thread, since files are read and hvac waits."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import hvac

from broker.issuance.errors import Broken
from broker.keys.vault_answers import Denied
from broker.keys.vault_settings import (
    AppRoleSettings,
    CertificateSettings,
    KubernetesSettings,
    LoginSettings,
    TokenSettings,
)
from broker.keys.vault_wrapping import OpenedTokens, open_secret_id

__all__ = ["Grant", "Login", "lease_of", "make_login"]

MAX_FILE_BYTES: Final = 64 * 1024
"""Largest token or key file that is read, in bytes; a projected token takes about 1 KiB."""

MAX_LEASE_SECONDS: Final = 10 * 365 * 24 * 3600
"""Longest lease that is reckoned with, in seconds: ten years, which no process lives."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What a secret id that Vault made looks like; no wrapping token does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A token, and for how long."""

    token: str = field(repr=False)
    seconds: int
    """How long it lasts; 0: for ever."""
    is_renewable: bool
    is_own: bool
    """Whether our own login made it, so that it ends with us."""
    is_revocable: bool = True
    """Whether it can be ended early; a batch token cannot."""
    is_root: bool = False
    """Whether it may do everything, so that nothing keeps our identities apart."""


class Login(Protocol):
    """One way of logging in, with what it keeps from one time to the next."""

    @property
    def what(self) -> str:
        """Return the method and where it is mounted, for messages."""
        ...

    @property
    def is_prompt(self) -> bool:
        """Return whether new evidence is to be shown at once, rather than at the next login."""
        ...

    def log_in(self, client: hvac.Client) -> Grant:
        """Return a token; *client* has none.

        Raises:
            Away: Vault cannot answer now.
            Denied: Vault does not let us in.
            Broken: Vault does not let us in, or what to show it cannot be read.
            Intercepted, UsedUp: See ``vault_wrapping``.
        """
        ...

    def evidence(self) -> str:
        """Return a hash of what would be shown to Vault now, so that a change is noticed."""
        ...


def make_login(settings: LoginSettings, state_dir: Path) -> Login:
    """Return the login that *settings* describe."""
    if isinstance(settings, TokenSettings):
        return TokenLogin(settings)
    if isinstance(settings, AppRoleSettings):
        return AppRoleLogin(settings, OpenedTokens(state_dir / "vault-opened"))
    if isinstance(settings, KubernetesSettings):
        return KubernetesLogin(settings)
    return CertificateLogin(settings)


class TokenLogin:
    """A token that somebody else made: it is read anew, and asked how long it lasts."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings

    @property
    def what(self) -> str:
        """Return where the token lies."""
        return f"token in {self._settings.place}"

    @property
    def is_prompt(self) -> bool:
        """Return True: the token of before may be about to end."""
        return True

    def evidence(self) -> str:
        """Return a hash of the token."""
        return _hash(self._settings.read_token)

    def log_in(self, client: hvac.Client) -> Grant:
        """Return the token, and what Vault says of it; see `Login`."""
        client.token = token = _text(self._settings.read_token, self.what)
        try:
            found = _mapping(client.adapter.get(url="/v1/auth/token/lookup-self"), "data")
            return Grant(
                token=token,
                seconds=lease_of(found.get("ttl")),
                is_renewable=bool(found.get("renewable")),
                is_own=False,
                is_revocable=False,
                is_root=_is_root(found),
            )
        except Denied as error:
            if error.is_token_bad:
                raise
            # It may not look at itself; one that may not be renewed either is of no use here.
            return self._renewed(client, token)

    def _renewed(self, client: hvac.Client, token: str) -> Grant:
        seconds, is_renewable = 0, False
        try:
            answer = client.adapter.post(url="/v1/auth/token/renew-self", json={})
            auth = _mapping(answer, "auth")
            seconds = lease_of(auth.get("lease_duration"))
            is_renewable = bool(auth.get("renewable"))
        except Broken:
            pass  # a batch token, which is not renewed
        return Grant(
            token=token,
            seconds=seconds,
            is_renewable=is_renewable,
            is_own=False,
            is_revocable=False,
        )


class AppRoleLogin:
    """AppRole; a secret id that came wrapped is kept in memory, for it is had only once."""

    def __init__(self, settings: AppRoleSettings, opened: OpenedTokens) -> None:
        self._settings = settings
        self._opened = opened
        self._unwrapped: tuple[str, str] | None = None
        """The hash of the wrapping token, and the secret id that was in it."""
        self._opening = threading.Lock()

    @property
    def what(self) -> str:
        """Return the method and its mount."""
        return f"approle at auth/{self._settings.mount}"

    @property
    def is_prompt(self) -> bool:
        """Return whether it is wrapped: it has to be opened before it expires."""
        return self._settings.is_wrapped

    def evidence(self) -> str:
        """Return a hash of role id and secret id, or of what that is wrapped in."""
        settings = self._settings
        return _hash(settings.read_role_id) + _hash(settings.read_secret_id)

    def log_in(self, client: hvac.Client) -> Grant:
        """Return a token; see `Login`."""
        role_id = _text(self._settings.read_role_id, "role id")
        answer = client.auth.approle.login(
            role_id=role_id,
            secret_id=self._secret_id(client),
            mount_point=self._settings.mount,
            use_token=False,
        )
        return _granted(answer, self.what)

    def _secret_id(self, client: hvac.Client) -> str:
        if not self._settings.is_wrapped:
            return _text(self._settings.read_secret_id, "secret id")
        with self._opening:  # two who log in at once must not both open it
            return self._unwrap(client)

    def _unwrap(self, client: hvac.Client) -> str:
        settings, known = self._settings, self._unwrapped
        try:
            token = _wrapping_token(settings)
        except Broken:
            if known is None:
                raise
            return known[1]  # whoever delivered it took the spent token away again
        mark = hashlib.sha256(token.encode()).hexdigest()
        if known is None or known[0] != mark:
            secret_id = open_secret_id(
                client, token, mount=settings.mount, place=settings.place, opened=self._opened
            )
            known = self._unwrapped = (mark, secret_id)
        return known[1]


class KubernetesLogin:
    """The projected token of the pod, which the kubelet replaces: read at every login."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings

    @property
    def what(self) -> str:
        """Return the method and its mount."""
        return f"kubernetes at auth/{self._settings.mount}"

    @property
    def is_prompt(self) -> bool:
        """Return False: the kubelet replaces it every hour."""
        return False

    def evidence(self) -> str:
        """Return a hash of the projected token."""
        return _hash(self._read)

    def log_in(self, client: hvac.Client) -> Grant:
        """Return a token; see `Login`."""
        answer = client.auth.kubernetes.login(
            role=self._settings.role,
            jwt=_text(self._read, "service account token"),
            mount_point=self._settings.mount,
            use_token=False,
        )
        return _granted(answer, self.what)

    def _read(self) -> bytes:
        return _file(self._settings.token_file)


class CertificateLogin:
    """A TLS client certificate, which is read at every login as well."""

    def __init__(self, settings: CertificateSettings) -> None:
        self._settings = settings

    @property
    def what(self) -> str:
        """Return the method and its mount."""
        return f"certificate at auth/{self._settings.mount}"

    @property
    def is_prompt(self) -> bool:
        """Return False: our token outlives the certificate."""
        return False

    def evidence(self) -> str:
        """Return a hash of the certificate."""
        return _hash(lambda: _file(self._settings.certificate))

    def log_in(self, client: hvac.Client) -> Grant:
        """Return a token; see `Login`."""
        settings = self._settings
        _file(settings.certificate)
        if b"ENCRYPTED" in _file(settings.key):
            # OpenSSL would ask for the passphrase at the terminal.
            raise Broken(f"key {settings.key} is encrypted, expected one that is not")
        answer = client.auth.cert.login(
            name=settings.role or "",
            cacert=False,
            cert_pem=str(settings.certificate),
            key_pem=str(settings.key),
            mount_point=settings.mount,
            use_token=False,
        )
        return _granted(answer, self.what)


def _granted(answer: Mapping[str, Any], what: str) -> Grant:
    auth = _mapping(answer, "auth")
    token = auth.get("client_token")
    if not isinstance(token, str) or not token:
        raise Broken(f"login by {what} answered without a token")
    is_batch = auth.get("token_type") == "batch"
    return Grant(
        token=token,
        seconds=lease_of(auth.get("lease_duration")),
        is_renewable=bool(auth.get("renewable")) and not is_batch,
        is_own=True,
        is_revocable=not is_batch,
        is_root=_is_root(auth),
    )


def _is_root(found: Mapping[str, Any]) -> bool:
    policies = found.get("policies")
    return isinstance(policies, list) and "root" in policies


def _mapping(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def _text(read: Callable[[], bytes], what: str) -> str:
    try:
        text = read().decode("ascii").strip()
    except UnicodeDecodeError:
        raise Broken(f"{what} is no text") from None
    if not text or not text.isprintable():
        raise Broken(f"{what} is empty or has characters in it that do not print")
    return text


def _wrapping_token(settings: AppRoleSettings) -> str:
    """Return what lies where the wrapping token should; raises Broken where it cannot be one."""
    token = _text(settings.read_secret_id, "wrapping token")
    if _UUID.fullmatch(token):
        raise Broken(
            f"{settings.place} holds no wrapping token but what looks like the secret id itself: "
            "deliver it wrapped (vault write -wrap-ttl=5m …), or say is_wrapped: false"
        )
    return token


def _hash(read: Callable[[], bytes]) -> str:
    try:
        return hashlib.sha256(read()).hexdigest()
    except Broken as error:
        return error.reason


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise Broken(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content


def lease_of(value: object) -> int:
    """Return a lease in seconds, as Vault tells it; 0 where it does not end."""
    return min(value, MAX_LEASE_SECONDS) if isinstance(value, int) and value > 0 else 0
