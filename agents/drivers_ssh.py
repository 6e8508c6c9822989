"""A driver for devices that are reached by SSH and whose command line makes keys and CSRs.

Run as ``python -m agents.drivers_ssh FILE``.  The device's commands stand in FILE, with
``{names}``, ``{name}``, ``{key_kind}`` and ``{certificate}`` in them for what is asked; each of
these was checked to be harmless words, since a device's own command line takes them apart again.
The host key has to be known beforehand: nothing is trusted at first sight.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from agents.driver_program import DeviceFault, Question, Settings, answer_one, read_settings
from agents.programs import ProgramFault, run

__all__ = ["main", "ssh_command"]

KNOWN: Final = (
    "host", "port", "user", "identity", "known_hosts", "ssh", "seconds",
    "csr", "renew", "install", "verify", "undo",
)  # fmt: skip
"""Keys of the file of settings.  ``csr`` makes a new key, ``renew`` a CSR for the one there is."""

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Most that is read of what a device says, in bytes; a chain in PEM measures under 30 KiB."""

CONNECT_SECONDS: Final = 15
"""How long SSH may take to connect, in seconds."""

_BLOCK: Final = "-----BEGIN {0}-----[A-Za-z0-9+/=\\s]+-----END {0}-----"
_WORD: Final = re.compile(r"[A-Za-z0-9._@:%+=,/-]{1,255}")


def ssh_command(settings: Settings, command: str) -> tuple[str, ...]:
    """Return the argument list that has the device run *command*.  Raises DeviceFault."""
    user, host = settings.text("user"), settings.text("host")
    for word in (user, host):
        if _WORD.fullmatch(word) is None or word.startswith("-"):
            raise DeviceFault(f"{word[:60]!r} is no name of a user or host", is_final=True)
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": settings.text("known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return (
        settings.text("ssh", "/usr/bin/ssh"),
        *("-F", "/dev/null", "-T"),
        *flags,
        *("-i", settings.text("identity")),
        *("-p", str(settings.number("port", 22))),
        *("-l", user, "--", host),
        command,
    )


class _Device:
    """The device that one file of settings describes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def act(self, question: Question) -> Mapping[str, Any]:
        """Do what is asked and return the answer."""
        if question.operation == "csr":
            key = "csr" if question.is_new_key else "renew"
            said = self._tell(key, question)
            return {"csr_pem": _only_block(said, "(?:NEW )?CERTIFICATE REQUEST")}
        if question.operation in {"install", "undo"}:
            self._tell(question.operation, question, given=question.chain_pem)
            return {}
        if question.operation == "verify":
            pem = _first_block(self._tell("verify", question), "CERTIFICATE")
            return {"fingerprint": _fingerprint(pem)}
        raise DeviceFault(f"operation {question.operation[:20]!r} is not known", is_final=True)

    def _tell(self, key: str, question: Question, *, given: str = "") -> str:
        words = {
            "{names}": " ".join(question.names),
            "{name}": question.names[0],
            "{key_kind}": question.key_kind,
            "{certificate}": question.certificate,
        }
        command = self._settings.text(key)
        for place, word in words.items():
            command = command.replace(place, word)
        try:
            finished = run(
                ssh_command(self._settings, command),
                limit=timedelta(seconds=self._settings.number("seconds", 120)),
                given=given.encode("utf-8"),
                most_output_bytes=MAX_OUTPUT_BYTES,
            )
        except ProgramFault as error:
            raise DeviceFault(f"the device did not answer: {error}") from None
        if finished.status != 0:
            last = finished.complaint.splitlines()[-1:] or [""]
            raise DeviceFault(f"{key} on the device {finished.ending} {last[0][:200]}".rstrip())
        return finished.output.decode("utf-8", "replace")


def _first_block(text: str, label: str) -> str:
    found = re.search(_BLOCK.format(label), text)
    if found is None:
        raise DeviceFault("the device's answer has no block that was asked for")
    return found[0]


def _only_block(text: str, label: str) -> str:
    found = re.findall(_BLOCK.format(label), text)
    if len(found) != 1:
        raise DeviceFault(f"the device's answer has {len(found)} blocks where one was asked for")
    return str(found[0])


def _fingerprint(pem: str) -> str:
    body = "".join(pem.split("-----")[2].split())
    try:
        return hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest()
    except ValueError:
        raise DeviceFault("the device's certificate is not base64") from None


def main(arguments: Sequence[str]) -> int:
    """Answer the question on standard input by the device of the file in *arguments*."""

    def act(question: Question) -> Mapping[str, Any]:
        if len(arguments) != 1:
            raise DeviceFault("name one file of settings", is_final=True)
        return _Device(read_settings(arguments[0], KNOWN)).act(question)

    return answer_one(act)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
