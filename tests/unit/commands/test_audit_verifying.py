"""What verify finds, as a document."""

import asyncio
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.commands.audit_reading import export_store
from broker.commands.audit_verifying import verified
from tests.unit.commands.test_audit import make_store
from tests.unit.config.conftest import parsed


def findings(found: dict[str, Any]) -> str:
    """Return all sentences."""
    return " ".join(one["sentence"] for one in found["findings"])


def exported(folder: Path, count: int) -> tuple[Path, Path]:
    """Return the export of a store of its own, and the key of its checkpoints."""
    folder.mkdir()
    pem = asyncio.run(make_store(folder, count))
    key, lines = folder / "key.pem", folder / "export.jsonl"
    key.write_text(pem)
    with lines.open("w") as file:
        export_store(parsed({"state": str(folder)}), 0, lambda line: print(line, file=file))
    return lines, key


def test_checkpoint_of_another_key_is_found(tmp_path: Path) -> None:
    """A forged one is worth nothing."""
    lines, _ = exported(tmp_path / "a", 3)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = tmp_path / "other.pem"
    key.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = verified(None, lines, checkpoints=lines, keys=key, accepted=())
    assert "signed by none of the public keys" in findings(found)


def test_checkpoints_of_another_chain_are_found(tmp_path: Path) -> None:
    """Two brokers cannot be taken for each other."""
    lines, _ = exported(tmp_path / "a", 3)
    others, _ = exported(tmp_path / "b", 5)
    found = verified(None, lines, checkpoints=others, keys=None, accepted=())
    assert "missing from the end" in findings(found)


def test_checkpoint_that_never_left_the_host_is_found(tmp_path: Path) -> None:
    """Somebody made one and kept it to themselves, or a sink lost it."""
    lines, key = exported(tmp_path / "a", 3)
    more, _ = exported(tmp_path / "b", 5)
    found = verified(None, lines, checkpoints=more, keys=key, accepted=())
    assert "not among those that left the host" in findings(found)


def test_unreadable_line_is_a_finding(tmp_path: Path) -> None:
    """Noise in an export is not passed over."""
    lines, key = exported(tmp_path / "a", 2)
    lines.write_text(lines.read_text() + "noise\n")
    found = verified(None, lines, checkpoints=None, keys=key, accepted=())
    assert "no record and no checkpoint" in findings(found)
