"""A host that serves many organisations, each with an owner of its own.

``python -m tests.contract.agents.whole_host 5000 1000`` measures one of any size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agents.crafting_library import ByLibrary
from tests.fakes.node_authority import Issue, NodeAuthority, key_pem

ROOT = Path(__file__).resolve().parents[3]

FIRST_UID = 200_000
"""Number of the first organisation's user; the host has no names for them."""


def owner_of(number: int, organisations: int) -> int:
    """Return who owns a certificate: its organisation, or whoever runs this if that is not root."""
    return FIRST_UID + number % organisations if os.geteuid() == 0 else os.geteuid()


def build(home: Path, count: int, organisations: int) -> tuple[Path, Path]:
    """Write the configuration of a host, make its keys, and have them certified."""
    authority, library = NodeAuthority(), ByLibrary()
    tls, state = home / "tls", home / "state"
    for folder in (tls, state, home / "agent.d"):
        folder.mkdir()
    anchors = home / "anchors.pem"
    anchors.write_text(authority.anchors_pem, encoding="ascii")
    (home / "agent.toml").write_text(
        f'[node]\nname = "host.example"\nstate = "{state}"\nallowed = ["{tls}"]\n'
        '[broker]\nurl = "https://broker.example"\nanchors = "system"\n'
        '[enrol]\nmethod = "approval"\n'
    )
    with open(home / "pairs", "w", encoding="utf-8") as pairs:
        for number in range(count):
            name = f"site-{number}"
            key = ec.generate_private_key(ec.SECP256R1())
            chain = authority.certify_key(key, Issue([f"{name}.example"]))
            leaf = x509.load_pem_x509_certificate(chain.encode())
            facts = library.facts(leaf.public_bytes(serialization.Encoding.DER))
            folder = state / "keys" / name
            folder.mkdir(parents=True)
            path = folder / f"{facts['spki_sha256']}.pem"
            path.write_bytes(key_pem(key))
            told = {one: facts[one] for one in ("fingerprint", "spki_sha256", "not_after")}
            pairs.write(json.dumps({"chain_pem": chain, "key": str(path), **told}) + "\n")
            owner = owner_of(number, organisations)
            (home / "agent.d" / f"{number:06d}.toml").write_text(
                f'[[certificate]]\nname = "{name}"\nnames = ["{name}.example"]\n'
                f'[certificate.files]\ndirectory = "{tls}/org-{owner}/{name}"\nowner = "{owner}"\n'
                f'[certificate.expects]\nanchors = "{anchors}"\n'
            )
    return home / "agent.toml", home / "pairs"


def measure(config: Path, pairs: Path) -> dict[str, float]:
    """Let the worker install and state all of them; return what it took."""
    command = [sys.executable, "-m", "tests.contract.agents.host_worker", str(config), str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        built = build(Path(made).resolve(), int(sys.argv[1]), int(sys.argv[2]))
        json.dump(measure(*built), sys.stdout, indent=2)
