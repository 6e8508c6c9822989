"""PKCS#12 that we write, opened by those who read it: OpenSSL, and Java."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agents.config import KeyKind, KeySection, Layout
from tests.fakes.node_authority import Node
from tests.peers.installation import installed

pytestmark = pytest.mark.peers

WAYS = ("cryptography", "openssl")


def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> tuple[Path, str]:
    """Return a PKCS#12 as it is installed, and its certificate's fingerprint."""
    from agents import install

    run_child = install.run_child
    monkeypatch.setattr(
        install, "run_child", lambda work, **more: run_child({**work, "by": by}, **more)
    )
    node = Node(tmp_path)
    section = node.section(Layout.PKCS12, key=KeySection(kind=KeyKind.RSA_2048))
    verified, key = node.obtain(section)
    node.install(section, verified, key)
    return node.tls / "www" / "www.p12", verified.fingerprint


@pytest.mark.parametrize("by", WAYS)
def test_openssl_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Key, certificate and issuer, under AES-256; not by another password."""
    path, _ = packed(tmp_path, monkeypatch, by)
    command = ["openssl", "pkcs12", "-in", str(path), "-nodes", "-info", "-passin", "env:PASSWORD"]
    environment = {**os.environ, "PASSWORD": "open sesame"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.count("BEGIN CERTIFICATE") == 2
    assert done.stdout.count("BEGIN PRIVATE KEY") == 1
    assert done.stderr.count("AES-256-CBC") == 2
    wrong = {**os.environ, "PASSWORD": "open barley"}
    assert subprocess.run(command, capture_output=True, check=False, env=wrong).returncode != 0


@pytest.mark.parametrize("by", WAYS)
def test_java_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """As a key entry with its chain."""
    path, fingerprint = packed(tmp_path, monkeypatch, by)
    keytool = str(installed("keytool"))
    command = [keytool, "-list", "-v", "-keystore", str(path), "-storetype", "PKCS12"]
    command += ["-storepass:env", "PASSWORD"]
    environment = {**os.environ, "PASSWORD": "open sesame", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "Entry type: PrivateKeyEntry" in done.stdout
    assert "Certificate chain length: 2" in done.stdout
    assert fingerprint in done.stdout.replace(":", "").lower()
