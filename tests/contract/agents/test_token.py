"""Keys on a PKCS#11 token, with SoftHSM: made there, used there, and nowhere else."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agents.child import ChildFault, run_child
from agents.config import KeyKind, KeySection, Layout
from agents.install import InstallFault
from agents.keys import MAX_WAITING, find_key, forget_key, make_csr, serving_key
from agents.leaving import destroy_left
from agents.recovery import clear_previous
from tests.fakes.node_authority import NOW, Node
from tests.peers.installation import installed

pytestmark = pytest.mark.peers

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "59137"


@dataclass
class Token:
    """A token of SoftHSM, in a folder of its own."""

    home: Path

    def uri(self, label: str = "www", **more: str) -> str:
        """Return the URI of keys on it."""
        named = {"module-path": MODULE, "pin-source": f"file:{self.home / 'pin'}", **more}
        query = "&".join(f"{name}={value}" for name, value in named.items())
        return f"pkcs11:token=web;object={label}?{query}"

    def objects(self) -> str:
        """Return what another program sees on it."""
        command = [str(installed("pkcs11-tool")), "--module", MODULE, "--token-label", "web"]
        command += ["--login", "--pin", "env:TOKEN_PIN", "--list-objects"]
        environment = {**os.environ, "TOKEN_PIN": PIN}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """A new token, with its PIN in a file."""
    home = tmp_path / "hsm"
    (home / "tokens").mkdir(parents=True)
    (home / "pin").write_text(f"{PIN}\n", encoding="ascii")
    settings = home / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {home / 'tokens'}\n", encoding="ascii")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    command = [str(installed("softhsm2")), "--init-token", "--free", "--label", "web"]
    subprocess.run([*command, "--so-pin", "1234", "--pin", PIN], capture_output=True, check=True)
    return Token(home)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
def test_a_key_is_made_and_used_on_the_token(token: Token, tmp_path: Path, kind: str) -> None:
    """The CSR verifies, another one is for the same key, and the key never leaves."""
    made = run_child(
        {"do": "key-and-csr", "kind": kind, "path": token.uri(), "names": ["www.example"]}
    )
    assert made["key_kind"] == kind
    csr = x509.load_der_x509_csr(_decode(made["csr_der"]))
    assert csr.is_signature_valid
    again = run_child({"do": "csr", "key": made["key"], "names": []})
    assert again["spki_sha256"] == made["spki_sha256"]
    seen = token.objects()
    assert "sensitive, always sensitive, never extractable" in seen
    assert "label:      www" in seen
    assert PIN not in made["key"]


def _decode(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_two_keys_of_one_name_are_told_apart(token: Token) -> None:
    """A new key is made beside the one that serves; each has its own URI."""
    work = {"do": "key-and-csr", "kind": "ec-p256", "path": token.uri(), "names": []}
    one, two = run_child(work), run_child(work)
    assert one["spki_sha256"] != two["spki_sha256"]
    for made in (one, two):
        assert run_child({"do": "public", "key": made["key"]})["spki_sha256"] == made["spki_sha256"]
    with pytest.raises(ChildFault, match="2 keys on the token"):
        run_child({"do": "public", "key": token.uri()})
    run_child({"do": "forget-key", "key": one["key"]})
    assert run_child({"do": "public", "key": token.uri()})["spki_sha256"] == two["spki_sha256"]


def test_what_a_token_refuses(token: Token) -> None:
    """Another PIN, another token, another module, a key that is not there: each is told."""
    for uri, said in (
        (token.uri().replace("token=web", "token=other"), "0 tokens"),
        (token.uri("absent"), "0 keys on the token"),
        (token.uri(**{"module-path": "/nowhere/lib.so"}), "cannot be loaded"),
        (token.uri(**{"module-path": "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"}), "no PKCS#11"),
        (token.uri(**{"pin-source": "file:/nowhere/pin"}), "cannot be read"),
    ):
        with pytest.raises(ChildFault, match=said):
            run_child({"do": "public", "key": uri})
    (token.home / "pin").write_text("00000\n", encoding="ascii")
    with pytest.raises(ChildFault, match="refused C_Login"):
        run_child({"do": "public", "key": token.uri()})


def test_the_whole_way_of_a_certificate(token: Token, tmp_path: Path) -> None:
    """The files hold the chain and the key's URI; no file anywhere holds a key."""
    node = Node(tmp_path)
    section = node.section(key=KeySection(kind=KeyKind.EC_P256, store=token.uri()))
    verified, key = node.obtain(section)
    installation = node.install(section, verified, key)
    folder = node.tls / "www"
    assert (folder / "privkey.uri").read_text().strip() == key
    assert (folder / "fullchain.pem").read_text() == verified.chain_pem
    installation.settle()
    state = str(node.state)
    assert serving_key("www", state) == find_key("www", verified.spki_sha256, state) == key
    kept = make_csr(section, names=section.names, is_new_key=False, state_dir=state)
    assert kept.spki_sha256 == verified.spki_sha256
    for path in (*node.tls.rglob("*"), *node.state.rglob("*")):
        if path.is_file():
            assert b"PRIVATE KEY" not in path.read_bytes(), path
    waiting = make_csr(section, names=section.names, is_new_key=True, state_dir=state)
    forget_key("www", waiting.key_reference, state)
    with pytest.raises(ChildFault, match="0 keys"):
        run_child({"do": "public", "key": waiting.key_reference})
    assert run_child({"do": "public", "key": key})


def keys_on(token: Token) -> int:
    """Return how many private keys another program sees on the token."""
    return token.objects().count("Private Key Object")


def test_previous_keys_are_destroyed_when_policys_time_has_passed(
    token: Token, tmp_path: Path
) -> None:
    """Not before, not the one in use, and not while the token refuses; the public halves go too."""
    node = Node(tmp_path)
    section = node.section(key=KeySection(kind=KeyKind.EC_P256, store=token.uri()))
    keep = timedelta(days=7)
    old, old_key = node.obtain(section)
    node.install(section, old, old_key, keep_previous=keep).settle()
    new, new_key = node.obtain(section)
    installation = node.install(section, new, new_key, keep_previous=keep)
    state = str(node.state)

    def destroy(after: timedelta) -> list[str]:
        now = NOW + after
        clear_previous((section,), allowed=node.allowed, now=now)
        return destroy_left((section,), allowed=node.allowed, state_dir=state, now=now)

    # Not yet known to be served: it may be taken back.
    assert destroy(timedelta(days=30)) == []
    assert keys_on(token) == 2
    installation.settle()
    assert destroy(timedelta(days=6)) == []
    assert keys_on(token) == 2
    assert run_child({"do": "public", "key": old_key})
    (token.home / "pin").write_text("00000\n", encoding="ascii")
    (fault,) = destroy(timedelta(days=8))
    assert "refused C_Login" in fault
    (token.home / "pin").write_text(f"{PIN}\n", encoding="ascii")
    assert keys_on(token) == 2
    assert destroy(timedelta(days=8)) == []
    assert keys_on(token) == 1
    assert token.objects().count("Public Key Object") == 1
    assert serving_key("www", state) == new_key
    assert run_child({"do": "public", "key": new_key})["spki_sha256"] == new.spki_sha256
    assert destroy(timedelta(days=400)) == []
    assert keys_on(token) == 1


def test_keys_that_waited_in_vain_fill_no_token(token: Token, tmp_path: Path) -> None:
    """However often the broker asks, those that are given up are destroyed."""
    node = Node(tmp_path)
    section = node.section(key=KeySection(kind=KeyKind.EC_P256, store=token.uri()))
    verified, key = node.obtain(section)
    node.install(section, verified, key).settle()
    state = str(node.state)
    for _ in range(MAX_WAITING + 3):
        make_csr(section, names=section.names, is_new_key=True, state_dir=state)
    assert destroy_left((section,), allowed=node.allowed, state_dir=state, now=NOW) == []
    assert keys_on(token) == MAX_WAITING + 1
    assert run_child({"do": "public", "key": key})


@pytest.mark.parametrize("layout", [Layout.COMBINED, Layout.PKCS12], ids=str)
def test_layouts_that_need_the_key_itself(token: Token, tmp_path: Path, layout: Layout) -> None:
    """They say so, and write nothing."""
    node = Node(tmp_path)
    section = node.section(layout, key=KeySection(store=token.uri()))
    verified, key = node.obtain(section)
    with pytest.raises(InstallFault, match="on a token"):
        node.install(section, verified, key)
    assert list(node.tls.iterdir()) == []
