"""What a pod's annotations ask for, as values.  Pure.

Every value is read strictly: it goes into the configuration of a program and into a pod, so what is
not of the expected form is refused with a sentence and never cleaned.  An annotation under our
prefix that nobody knows is refused as well: a misspelt one would leave a pod without what it needs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.admission.denials import Denied, Malformed, shown

__all__ = ["DEFAULT_PATH", "Reload", "Wanted", "is_asking", "parse_wanted"]

DEFAULT_PATH: Final = "/var/run/penstock/tls"
"""Where the application finds its files unless it says otherwise."""

MAX_NAMES: Final = 100
"""Most names of one certificate, as public CAs have it."""

MAX_USER: Final = 2**31 - 1
"""Highest number of a user that Kubernetes takes."""

LAYOUTS: Final = ("kubernetes", "pem", "combined")
"""Layouts of the agent's that need nothing else; PKCS#12 would need a password."""

KEYS: Final = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")
"""Kinds of keys that the agent makes."""

SIGNALS: Final = ("HUP", "USR1", "USR2", "WINCH", "TERM", "INT", "CONT", "ALRM")
"""Signals that the agent sends."""

ASKED: Final = (
    "inject", "names", "profile", "path", "layout", "reload", "user", "containers", "look", "key",
)  # fmt: skip
"""What a pod may say, behind the prefix."""

TOLD: Final = ("status", "agent-version")
"""What is written into a pod that was injected."""

_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.:-]{0,251}[a-z0-9])?", re.ASCII)
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_@+=-][A-Za-z0-9_.@+=-]{0,100}){1,20}", re.ASCII)
_PROGRAM: Final = re.compile(r"(?:/[A-Za-z0-9_.+-]{1,100}){1,20}|[A-Za-z0-9_.+-]{1,100}", re.ASCII)
_CONTAINER: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LOOK: Final = re.compile(r"(?:\[[0-9a-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}", re.ASCII)

_NOT_BELOW: Final = ("/proc", "/sys", "/dev")
"""Trees of the kernel's, where nothing is mounted over."""

_NOT_OVER: Final = frozenset(
    {"/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/var"}
)
"""Folders that hold a program itself: a mount would hide all that is in them."""


@dataclass(frozen=True, slots=True)
class Reload:
    """A signal for one program."""

    signal: str
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a pod asks for."""

    names: tuple[str, ...] = ()
    """Empty: what policy gives it by default."""
    profile: str = ""
    path: str = DEFAULT_PATH
    layout: str = LAYOUTS[0]
    reload: Reload | None = None
    user: int | None = None
    """None: the user that the application runs as."""
    containers: tuple[str, ...] = ()
    """Empty: all of the pod's."""
    look: str = ""
    key: str = KEYS[0]


def is_asking(annotations: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether the pod asks to be injected.

    Raises:
        Denied: It says neither yes nor no.
    """
    value = annotations.get(f"{prefix}/inject")
    if value not in (None, "true", "false"):
        raise Denied(
            f"annotation '{prefix}/inject' is {shown(value)}", "expected 'true' or 'false'"
        )
    return bool(value == "true")


def parse_wanted(annotations: Mapping[str, Any], prefix: str) -> Wanted:
    """Return what a pod that asks wants.

    Raises:
        Denied: A value is not of the expected form, or an annotation is not known.
        Malformed: An annotation is no text, which no API server sends.
    """
    given: dict[str, str] = {}
    for key, value in annotations.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise Malformed("an annotation is no text")
        before, stroke, word = key.partition("/")
        if before == prefix and stroke:
            _check_known(word, key)
            given[word] = value
    read = _Reader(given, prefix)
    return Wanted(
        names=read.names(),
        profile=read.word("profile", _PROFILE, "the name of a profile such as 'server'"),
        path=read.path(),
        layout=read.choice("layout", LAYOUTS),
        reload=read.reload(),
        user=read.user(),
        containers=read.containers(),
        look=read.word("look", _LOOK, "host and port such as '127.0.0.1:8443'"),
        key=read.choice("key", KEYS),
    )


def _check_known(word: str, key: str) -> None:
    if word in ASKED or word in TOLD:
        return
    near = difflib.get_close_matches(word, ASKED, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ASKED)}"
    raise Denied(f"annotation {shown(key)} is not known", hint)


class _Reader:
    """Reads values, each with its own sentence."""

    def __init__(self, given: Mapping[str, str], prefix: str) -> None:
        self._given = given
        self._prefix = prefix

    def word(self, word: str, form: re.Pattern[str], expected: str) -> str:
        value = self._given.get(word, "")
        if value and form.fullmatch(value) is None:
            raise self._unexpected(word, value, f"expected {expected}")
        return value

    def choice(self, word: str, among: tuple[str, ...]) -> str:
        value = self._given.get(word, "") or among[0]
        if value not in among:
            raise self._unexpected(word, value, f"expected one of {', '.join(among)}")
        return value

    def names(self) -> tuple[str, ...]:
        found = self._listed("names")
        for one in found:
            if _NAME.fullmatch(one) is None:
                raise self._unexpected(
                    "names", one, "expected DNS names in lower case, or addresses"
                )
        if len(found) > MAX_NAMES:
            raise self._unexpected("names", f"{len(found)} names", f"the limit is {MAX_NAMES}")
        return found

    def containers(self) -> tuple[str, ...]:
        found = self._listed("containers")
        for one in found:
            if _CONTAINER.fullmatch(one) is None:
                raise self._unexpected("containers", one, "expected names of containers")
        return found

    def path(self) -> str:
        value = self._given.get("path", "") or DEFAULT_PATH
        if _PATH.fullmatch(value) is None or len(value) > 512:
            raise self._unexpected(
                "path", value, f"expected an absolute path without dots such as '{DEFAULT_PATH}'"
            )
        is_kernels = any(value == one or value.startswith(f"{one}/") for one in _NOT_BELOW)
        if is_kernels or value in _NOT_OVER:
            raise self._unexpected(
                "path", value, "a mount there would hide what the container needs; take a folder "
                "of its own"
            )  # fmt: skip
        return value

    def reload(self) -> Reload | None:
        value = self._given.get("reload", "") or "none"
        if value == "none":
            return None
        kind, _, rest = value.partition(":")
        signal, _, program = rest.partition(":")
        is_fit = signal in SIGNALS and _PROGRAM.fullmatch(program) and ".." not in program
        if kind != "signal" or not is_fit:
            raise self._unexpected(
                "reload", value, "expected 'none' or a signal and a program such as "
                f"'signal:HUP:/usr/sbin/nginx', with one of {', '.join(SIGNALS)}"
            )  # fmt: skip
        return Reload(signal, program)

    def user(self) -> int | None:
        value = self._given.get("user", "")
        if not value:
            return None
        is_number = value.isascii() and value.isdigit() and len(value) <= 10
        if not is_number or not 0 < int(value) <= MAX_USER:
            raise self._unexpected(
                "user", value, "expected the number of the user that the application runs as, "
                "which is not root's"
            )  # fmt: skip
        return int(value)

    def _listed(self, word: str) -> tuple[str, ...]:
        value = self._given.get(word, "")
        parts = [part.strip(" ") for part in value.split(",")] if value.strip(" ,") else []
        if "" in parts:
            raise self._unexpected(word, value, "there is a comma with nothing beside it")
        return tuple(dict.fromkeys(parts))

    def _unexpected(self, word: str, value: str, hint: str) -> Denied:
        return Denied(f"annotation '{self._prefix}/{word}' has {shown(value)}", hint)
