"""The switch within one open folder; whole installs are shown in test_install."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from agents.layouts import Piece, Plan
from agents.owners import Ownership
from agents.paths import PathFault
from agents.switching import (
    Giving,
    Journal,
    Placed,
    before_name,
    place_file,
    place_folder,
    put_back,
    put_by,
    read_stable,
)

GIVING = Giving(Ownership(), 0o600)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open folder, live/www as certbot has it."""
    (tmp_path / "live" / "www").mkdir(parents=True)
    descriptor = os.open(tmp_path / "live" / "www", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def plan(number: int, link: str | None = "current") -> Plan:
    """Return what is to lie there."""
    octets = f"{number}".encode()
    pieces = [Piece("www.pem", octets, is_secret=True)]
    if link is not None:
        pieces = [
            Piece("fullchain.pem", octets, is_secret=False),
            Piece("privkey.pem", octets, is_secret=True),
        ]
    return Plan("/x", tuple(pieces), link)


def switch(folder: int, made: Plan, told: list[Journal] | None = None) -> Journal:
    """Switch to it."""
    began = Journal(
        certificate="www",
        fingerprint="f" * 64,
        spki_sha256="0" * 64,
        keep_seconds=0,
        link=made.link,
        names=tuple(one.name for one in made.pieces),
    )
    place = place_file if made.link is None else place_folder
    told = told if told is not None else []
    return place(folder, made, GIVING, journal=began, before=None, write_down=told.append)


def read(tmp_path: Path, name: str) -> str:
    """Return what is read under a name."""
    return (tmp_path / "live" / "www" / name).read_text()


@pytest.mark.parametrize("link", ["current", "..data", None], ids=str)
def test_there_and_back(tmp_path: Path, folder: int, link: str | None) -> None:
    """What was there before is what is there after."""
    name = plan(1, link).pieces[-1].name
    put_by(folder, switch(folder, plan(1, link)), 0)
    journal = switch(folder, plan(2, link))
    assert read(tmp_path, name) == "2"
    assert Placed(folder, journal).is_switched
    put_back(folder, journal)
    assert read(tmp_path, name) == "1"
    assert not Placed(folder, journal).is_switched


def test_it_is_written_down_before_it_is_done(tmp_path: Path, folder: int) -> None:
    """At that moment the old pair is still the one that is read."""
    switch(folder, plan(1))
    seen = []

    class Told(list[Journal]):
        def append(self, journal: Journal) -> None:
            seen.append((read(tmp_path, "privkey.pem"), Placed(folder, journal).is_switched))

    switch(folder, plan(2), Told())
    assert seen == [("1", False)]
    assert read(tmp_path, "privkey.pem") == "2"


def test_a_journal_there_and_back() -> None:
    """It is read as it was written; one with a path in it is no journal."""
    journal = Journal(
        certificate="www",
        fingerprint="f",
        spki_sha256="0",
        keep_seconds=5,
        link="current",
        names=("a", "b"),
        new=".penstock-1",
        old="",
    )
    document = {**asdict(journal), "names": list(journal.names)}
    assert Journal.parse(document) == journal
    for change in ({"new": "../x"}, {"old": "/etc"}, {"names": ["a/b"]}, {"names": 5}, {"more": 1}):
        assert Journal.parse({**document, **change}) is None


def test_certbots_own_links_are_followed_and_no_others(tmp_path: Path, folder: int) -> None:
    """Into the archive beside live, and nowhere else."""
    archive = tmp_path / "archive" / "www"
    archive.mkdir(parents=True)
    (archive / "privkey7.pem").write_bytes(b"seven")
    place = tmp_path / "live" / "www" / "privkey.pem"
    place.symlink_to("../../archive/www/privkey7.pem")
    found = read_stable(folder, "privkey.pem")
    assert found is not None
    assert found.octets == b"seven"
    for text in ("../../archive/../secret", "/etc/passwd", "../../archive/www/../x", "other"):
        place.unlink()
        place.symlink_to(text)
        with pytest.raises(PathFault, match="did not make"):
            read_stable(folder, "privkey.pem")


def test_what_is_kept_has_its_time_in_its_name(tmp_path: Path, folder: int) -> None:
    """Both layouts, under names that no server reads."""
    for link in ("current", None):
        put_by(folder, switch(folder, plan(1, link)), 0)
        put_by(folder, switch(folder, plan(2, link)), 1_900_000_000)
    names = [one for one in os.listdir(tmp_path / "live" / "www") if "previous" in one]
    assert len(names) == 2
    assert all(one.startswith(".previous-1900000000-") for one in names)
    assert not (tmp_path / "live" / "www" / before_name("www.pem")).exists()


@pytest.mark.parametrize("link", ["current", None], ids=str)
def test_what_was_given_up_is_not_gone_back_to(
    tmp_path: Path, folder: int, link: str | None
) -> None:
    """An agent that was killed while it settled does not switch to what is not there any more."""
    put_by(folder, switch(folder, plan(1, link)), 0)
    journal = switch(folder, plan(2, link))
    put_by(folder, journal, 0)
    with pytest.raises(PathFault, match="given up"):
        put_back(folder, journal)
    assert read(tmp_path, plan(1, link).pieces[-1].name) == "2"
