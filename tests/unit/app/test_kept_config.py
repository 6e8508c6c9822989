"""The configuration that served last, for a start beside a file that is no use."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.app.config_keeping import ReadConfig
from broker.app.kept_config import MAX_KEPT_BYTES, KeptConfig, begin_with
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Faults
from tests.unit.app.test_config_keeping import JANE, reading


@pytest.fixture
def kept(tmp_path: Path) -> KeptConfig:
    """A file that is not there yet."""
    return KeptConfig(tmp_path / "last-good.json")


def test_what_is_kept_is_read_again(kept: KeptConfig) -> None:
    """With its own people, and for its owner alone."""
    first = reading(operators=JANE)
    kept.write(first, first)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    found = kept.read()
    assert found is not None
    assert (found.reading, found.people) == (first, first)


def test_people_of_a_later_reading_count(kept: KeptConfig) -> None:
    """Who was taken out of a file that was refused otherwise does not come back by a restart."""
    kept.write(reading(operators=JANE), reading(log__level="debug"))
    found = kept.read()
    assert found is not None
    assert found.reading.config.operators is None
    assert found.reading.config == reading().config
    assert found.reading.text == reading(operators=JANE).text


@pytest.mark.parametrize(
    "octets",
    [b"", b"{", b"[]", b'{"form": 2}', b'{"form": 1, "configuration": "a: ["}', b"\xff"],
    ids=["empty", "half", "list", "another-form", "broken-inside", "no-text"],
)
def test_what_cannot_be_used_is_nothing(kept: KeptConfig, octets: bytes) -> None:
    """An older version may meet what a newer one has kept; the log says so."""
    assert kept.read() is None
    kept.path.write_bytes(octets)
    with capture_logs() as logs:
        assert kept.read() is None
    assert [line["event"] for line in logs] == ["the kept configuration is no use"]


def written(path: Path) -> tuple[int, int, int]:
    """Return what a writing of a file would change; reading it may move its time of access."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def test_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    """It is told; the twin leaves no word and no second writing of the same."""
    with capture_logs() as logs:
        KeptConfig(tmp_path / "gone" / "x.json").write(reading(), reading())
        fine = KeptConfig(tmp_path / "x.json")
        fine.write(reading(), reading())
        before = written(fine.path)
        fine.write(reading(), reading())
    assert [line["event"] for line in logs] == ["configuration cannot be kept"]
    assert written(fine.path) == before


def test_file_that_is_fit_is_what_a_broker_begins_with(tmp_path: Path, kept: KeptConfig) -> None:
    """Whatever is kept."""
    kept.write(reading(log__level="debug"), reading())
    path = tmp_path / "penstock.yaml"
    path.write_text(reading().text)
    begun = begin_with(path, is_following=True, last_good=kept.path)
    assert begun.reading.text == reading().text
    assert (begun.error, begun.path, begun.is_following) == (None, path, True)


@pytest.mark.parametrize("text", [None, "a: ["], ids=["gone", "broken"])
def test_kept_one_takes_the_place_of_a_file_that_is_no_use(
    tmp_path: Path, kept: KeptConfig, text: str | None
) -> None:
    """With the reason; without a kept one there is nothing to begin with."""
    path = tmp_path / "penstock.yaml"
    if text is not None:
        path.write_text(text)
    for place in (None, kept.path):
        with pytest.raises((Broken, Faults)):
            begin_with(path, last_good=place)
    kept.write(reading(), reading(operators=JANE))
    begun = begin_with(path, last_good=kept.path)
    assert begun.error is not None
    assert begun.reading.text == reading().text
    assert begun.people is not None
    assert begun.people.config.operators is not None


def test_no_secret_is_kept(tmp_path: Path, kept: KeptConfig) -> None:
    """References, as the file has them."""
    secret = tmp_path / "secret"
    secret.write_text("very secret")
    made = reading(keys__passphrase=f"file:{secret}")
    kept.write(made, made)
    assert "very secret" not in kept.path.read_text()
    assert f"file:{secret}" in json.loads(kept.path.read_text())["configuration"]


def test_two_large_texts_are_read_again(kept: KeptConfig) -> None:
    """Twice the largest that a configuration may be; what is larger is nobody's work of ours."""
    first = reading(log__level="debug")
    filler = '# a "comment"\\ \n' * (1_000_000 // 18)
    large = ReadConfig(config=first.config, text=first.text + filler)
    kept.write(large, ReadConfig(config=first.config, text=large.text + "# end\n"))
    found = kept.read()
    assert found is not None
    assert found.reading.text == large.text
    kept.path.write_bytes(b" " * (MAX_KEPT_BYTES + 1))
    assert kept.read() is None


def test_two_who_keep_it_at_once_leave_one_whole(kept: KeptConfig) -> None:
    """They would write beside it under one name."""
    readings = [reading(log__level=level) for level in ("debug", "info", "error")]
    with capture_logs() as logs, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: kept.write(one, one), readings * 20))
    assert logs == []
    found = kept.read()
    assert found is not None
    assert found.reading in readings
