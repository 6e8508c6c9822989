"""docs/policy.md, followed word for word: each block that is to be typed, in order, in one shell.

The variables that the page asks its reader to set are set here; nothing else is.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from tests.e2e.test_vault_newcomer import Shell, steps, variables
from tests.peers import process
from tests.peers.installation import installed

pytestmark = pytest.mark.e2e

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "policy.md"

PAYMENT: Final = "eu.pay.corp.example"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the page asks its reader to set."""
    acme = f"127.0.0.1:{process.free_port()}"
    lab = tmp_path / "lab"
    return {
        "ETC": f"{lab}/etc",
        "STATE": f"{lab}/state",
        "POLICIES": f"{lab}/etc/policies",
        "REVIEW": f"{lab}/review",
        "PENSTOCK_CONFIG": f"{lab}/etc/penstock.yaml",
        "PENSTOCK_URL": f"https://{acme}",
        "PENSTOCK_HOST": "IP:127.0.0.1",
        "ACME_LISTEN": acme,
        "PLAIN_LISTEN": f"127.0.0.1:{process.free_port()}",
        "HEALTH_LISTEN": f"127.0.0.1:{process.free_port()}",
        "CLIENT_HOME": f"{lab}/client",
        "CLIENT_ADDRESS": "127.0.0.1",
        "HTTP_PORT": str(process.free_port()),
    }


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """A shell of somebody who installed what the page asks for."""
    clean = process.clean_environment(tmp_path, environment)
    programs = [Path(sys.executable).parent, installed("certbot").parent]
    path = os.pathsep.join(map(str, programs))
    opened = Shell({**clean, "PATH": f"{path}{os.pathsep}{clean['PATH']}"}, tmp_path)
    yield opened
    opened.close()


def test_whoever_follows_the_page_gets_there(shell: Shell, environment: dict[str, str]) -> None:
    """Every command succeeds, every promised line is there, and the change holds."""
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
    live = Path(environment["CLIENT_HOME"]) / "live"
    payment, other = (
        x509.load_pem_x509_certificate((live / name / "cert.pem").read_bytes())
        for name in (PAYMENT, "www.corp.example")
    )
    assert lifetime(payment) <= timedelta(days=7, hours=2)
    assert lifetime(other) > timedelta(days=40)


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return how long a certificate is valid."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc
