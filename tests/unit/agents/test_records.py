"""What is known of each certificate."""

from pathlib import Path

from agents.records import Record, Records
from agents.state import Folder


def test_a_record_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """All of its members."""
    record = Record("www", generation=2, fingerprint="f", not_before=1, not_after=2, is_seen=True)
    record.begin("d1", "installed", "f", "note")
    Records(Folder(str(tmp_path))).put(record)
    assert Records(Folder(str(tmp_path))).get("www") == record


def test_one_that_nobody_knows_is_empty() -> None:
    """A certificate that is new has no record yet."""
    assert Record("www").generation == 0


def test_members_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    """A file that was edited, or is of another version, spoils no other member."""
    Folder(str(tmp_path)).put("www", {"generation": "9", "fingerprint": "f", "newer": [1]})
    found = Records(Folder(str(tmp_path))).get("www")
    assert (found.generation, found.fingerprint) == (0, "f")


def test_a_csr_can_outlive_the_key_that_waited_for_it() -> None:
    """For a policy that asks for it again."""
    record = Record("www", asked_delivery="d", asked_csr="c", asked_spki="s", asked_key="k")
    record.forget_asked(keep_csr=True)
    assert (record.asked_delivery, record.asked_csr) == (None, "c")
    record.forget_asked()
    assert record.asked_csr is None


def test_another_node_counts_generations_anew(tmp_path: Path) -> None:
    """What is in place stays in place."""
    records = Records(Folder(str(tmp_path)))
    record = records.get("www")
    record.generation, record.fingerprint = 7, "f"
    records.put(record)
    records.forget_generations()
    found = Records(Folder(str(tmp_path))).get("www")
    assert (found.generation, found.fingerprint) == (0, "f")
