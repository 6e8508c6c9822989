"""docs/vault.md, followed word for word: each block that is to be typed, in order, in one shell.

The variables that the page asks its reader to set are set here; nothing else is.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from tests.peers import process
from tests.peers.installation import installed
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions

pytestmark = pytest.mark.e2e

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "vault.md"

BLOCK: Final = re.compile(r"^```(sh|text|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)

BLOCK_SECONDS: Final = 60
"""Longest that one block may take; starting Vault takes longest, about 5 s."""

NAME: Final = "www.corp.example"


@dataclass(frozen=True)
class Step:
    """A block to type, and the lines that are promised for an answer."""

    typed: str
    promised: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """Return what is to be typed, in order."""
    found = [(kind, text) for kind, text in BLOCK.findall(page) if kind != "bash"]
    made = []
    for (kind, text), after in itertools.zip_longest(found, found[1:]):
        if kind == "sh":
            promised = after[1] if after is not None and after[0] == "text" else ""
            made.append(Step(text, tuple(promised.splitlines())))
    return made


def variables(page: str) -> set[str]:
    """Return the names that the page asks to set."""
    asked = [text for kind, text in BLOCK.findall(page) if kind == "bash"]
    return set(re.findall(r"^export ([A-Z_]+)=", "".join(asked), re.MULTILINE))


class Shell:
    """A bash in which each command has to succeed, though it goes on if one does not."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        self._directory = directory
        self.answer("set -E -o pipefail; trap 'echo \"@failed: $BASH_COMMAND\"' ERR\n")

    def answer(self, typed: str) -> list[str]:
        """Type *typed* and return the lines that came back.

        Raises:
            PeerFailed: A command failed, or the block took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(BLOCK_SECONDS, self.stop)
        watch.start()
        self._process.stdin.write(f"{typed}\necho; echo @done\n".encode())
        self._process.stdin.flush()
        lines = []
        for octets in self._process.stdout:
            line = octets.decode("utf-8", "replace")
            if line == "@done\n":
                break
            lines.append(line.rstrip("\n"))
        else:
            raise process.PeerFailed(f"not within {BLOCK_SECONDS} s:\n{typed}\n" + "\n".join(lines))
        watch.cancel()
        if any(line.startswith("@failed") for line in lines):
            raise process.PeerFailed(f"{typed}\n" + "\n".join(lines))
        return lines

    def stop(self) -> None:
        """End the shell and everything that was started in it."""
        process.stop_group(self._process, "shell")

    def close(self) -> None:
        """Stop it, and let go of its pipes."""
        self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[tuple[Pebble, int]]:
    """The newcomer's CA, with the port at which it looks for http-01."""
    port = process.free_port()
    with (
        ChallTestSrv(tmp_path / "dns") as names,
        Pebble(
            tmp_path / "pebble",
            validation_http_port=port,
            dns_server=names.dns_address,
            options=PebbleOptions(),
        ) as ca,
    ):
        yield ca, port


@pytest.fixture
def environment(tmp_path: Path, pebble: tuple[Pebble, int]) -> dict[str, str]:
    """What the page asks its reader to set."""
    ca, plain_port = pebble
    acme = f"127.0.0.1:{process.free_port()}"
    lab = tmp_path / "lab"
    return {
        "VAULT_HOME": f"{lab}/vault",
        "VAULT_ADDR": f"https://127.0.0.1:{process.free_port()}",
        "VAULT_CACERT": f"{lab}/vault/tls.crt",
        "VAULT_HOST": "IP:127.0.0.1",
        "ETC": f"{lab}/etc",
        "RUN": f"{lab}/run",
        "STATE": f"{lab}/state",
        "PENSTOCK_CONFIG": f"{lab}/etc/penstock.yaml",
        "PENSTOCK_URL": f"https://{acme}",
        "PENSTOCK_HOST": "IP:127.0.0.1",
        "ACME_LISTEN": acme,
        "PLAIN_LISTEN": f"127.0.0.1:{plain_port}",
        "HEALTH_LISTEN": f"127.0.0.1:{process.free_port()}",
        "CA_DIRECTORY": ca.directory_url,
        "CA_BUNDLE": str(ca.ca_bundle),
        "CLIENT_HOME": f"{lab}/client",
        "CLIENT_NAME": NAME,
        "CLIENT_ADDRESS": "127.0.0.1",
        "HTTP_PORT": str(process.free_port()),
    }


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """A shell of somebody who installed what the page asks for."""
    clean = process.clean_environment(tmp_path, environment)
    programs = [
        Path(sys.executable).parent,
        installed("vault").parent,
        installed("certbot").parent,
    ]
    path = os.pathsep.join(map(str, programs))
    opened = Shell({**clean, "PATH": f"{path}{os.pathsep}{clean['PATH']}"}, tmp_path)
    yield opened
    opened.close()


def test_whoever_follows_the_page_gets_there(
    shell: Shell, environment: dict[str, str], pebble: tuple[Pebble, int]
) -> None:
    """Every command succeeds, every promised line is there, and the CA issued what was asked."""
    page = PAGE.read_text("utf-8")
    assert variables(page) == set(environment)
    for step in steps(page):
        lines = shell.answer(step.typed)
        for promised in step.promised:
            pattern = f"*{promised.replace('[', '[[]').replace('…', '*')}*"
            assert any(fnmatch.fnmatchcase(line, pattern) for line in lines), (
                promised,
                step.typed,
                lines,
            )
    chain = Path(environment["CLIENT_HOME"]) / "live" / NAME / "cert.pem"
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    issued = [one.serial_hex for one in pebble[0].issued()]
    assert len(issued) == 2
    assert f"{leaf.serial_number:x}" == issued[-1]


def test_page_promises_something_of_what_it_has_typed() -> None:
    """Most blocks have an answer to look for; a page without any would prove nothing."""
    found = steps(PAGE.read_text("utf-8"))
    assert len(found) >= 10
    assert sum(bool(step.promised) for step in found) >= 8
