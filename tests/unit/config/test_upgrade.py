"""What precedes a change of the store's form."""

from pathlib import Path

from tests.unit.config.conftest import FaultsOf, Parse


def test_backup_is_made_unless_somebody_says_never(parse: Parse) -> None:
    """In the state directory, unless a directory is named."""
    assert parse().upgrade.backup == "always"
    assert parse().upgrade.backups is None
    said = parse({"upgrade.backup": "never", "upgrade.backups": "/backup"}).upgrade
    assert (said.backup, said.backups) == ("never", Path("/backup"))


def test_another_word_is_refused(faults_of: FaultsOf) -> None:
    """Rather than taken for one of both."""
    (fault,) = faults_of({"upgrade.backup": "sometimes"})
    assert "upgrade.backup" in fault
