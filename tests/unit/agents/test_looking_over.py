"""Looking a host over before an agent runs on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from agents.config import (
    AgentConfig,
    BrokerSection,
    CertificateSection,
    EnrolMethod,
    EnrolSection,
    ExpectsSection,
    FilesSection,
    NodeSection,
    ReloadSection,
)
from agents.looking_over import look_over, warn_of


def config(
    tmp_path: Path,
    *,
    owner: str | None = None,
    program: str = "/bin/sh",
    is_unchecked: bool = False,
) -> AgentConfig:
    """Return a configuration of a host that has all of it."""
    (tmp_path / "anchors.pem").touch()
    (tmp_path / "web.pem").touch()
    (tmp_path / "token").write_text("token")
    return AgentConfig(
        node=NodeSection(name="web.example.test", state=str(tmp_path / "state")),
        broker=BrokerSection(url="https://broker.test", anchors=str(tmp_path / "anchors.pem")),
        enrol=EnrolSection(method=EnrolMethod.TOKEN, credential=f"file:{tmp_path}/token"),
        certificates=(
            CertificateSection(
                name="www",
                names=("www.example.test",),
                files=FilesSection(directory=str(tmp_path / "www"), file="www", owner=owner),
                reload=ReloadSection(command=(program,)),
                expects=ExpectsSection(anchors=None if is_unchecked else str(tmp_path / "web.pem")),
            ),
        ),
    )


def test_a_host_that_has_all_has_no_findings(tmp_path: Path) -> None:
    """Folders that are not there yet are made."""
    assert look_over(config(tmp_path)) == []


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("anchors.pem", "broker.anchors"),
        ("token", "enrol.credential"),
        ("web.pem", "certificate[www].expects.anchors"),
    ],
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, gone: str, said: str) -> None:
    """By its key."""
    made = config(tmp_path)
    (tmp_path / gone).unlink()
    (found,) = look_over(made)
    assert found.startswith(said)


def test_anchors_that_nobody_checks_are_warned_of(tmp_path: Path) -> None:
    """They are no finding, since the file says so; with a file of anchors nothing is said."""
    made = config(tmp_path, is_unchecked=True)
    assert look_over(made) == []
    (warning,) = warn_of(made)
    assert warning.startswith("certificate[www].expects.anchors: unchecked")
    assert warn_of(config(tmp_path)) == []


def test_credential_of_systemd_is_looked_at_where_systemd_hands_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a command on a terminal it is warned of, and no finding."""
    enrol = EnrolSection(method=EnrolMethod.TOKEN, credential="file:penstock.join-token")
    made = replace(config(tmp_path), enrol=enrol)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert look_over(made) == []
    (warning,) = warn_of(made)
    assert "/etc/credstore/penstock.join-token" in warning
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (found,) = look_over(made)
    assert found.startswith("enrol.credential")
    (tmp_path / "penstock.join-token").write_text("token")
    assert (look_over(made), warn_of(made)) == ([], [])


def test_a_spent_token_is_not_missed(tmp_path: Path) -> None:
    """A node that has its identity needs none."""
    made = config(tmp_path)
    (tmp_path / "token").unlink()
    (tmp_path / "state" / "identity").mkdir(parents=True)
    (tmp_path / "state" / "identity" / "identity.json").touch()
    assert look_over(made) == []


def test_an_owner_or_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The first renewal would fail otherwise, weeks later."""
    found = look_over(config(tmp_path, owner="nobody-by-that-name", program="/not/there"))
    assert [one.split(":")[0] for one in found] == [
        "certificate[www].files.owner",
        "certificate[www]",
    ]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    """It would be found at the first install."""
    made = config(tmp_path)
    (tmp_path / "www").touch()
    assert "is no folder" in look_over(made)[0]
