"""The configuration as values."""

import sys
from pathlib import Path

import pytest

from agents.config import ConfigFault, LookSection, ReloadSection, load
from tests.fakes.agent_config import make_certificate, make_config


def test_those_that_reload_the_same_thing_have_the_same_target() -> None:
    """They are reloaded once; nothing to reload is no target."""
    assert ReloadSection(systemd="a.service").target == ReloadSection(systemd="a.service").target
    different = [
        ReloadSection(systemd="a.service"),
        ReloadSection(command=("/bin/x", "a b")),
        ReloadSection(command=("/bin/x", "a", "b")),
        ReloadSection(signal="HUP", process="nginx"),
        ReloadSection(signal="HUP", process="nginx", pid_file="/run/a.pid"),
        ReloadSection(signal="USR1", process="nginx"),
    ]
    assert len({one.target for one in different}) == len(different)
    assert ReloadSection().target is None
    assert ReloadSection().is_nothing


def test_an_address_is_written_as_people_write_it() -> None:
    """With brackets where it has colons."""
    assert LookSection(host="::1", port=443, server_name=None).connect == "[::1]:443"
    assert LookSection(host="web.test", port=25, server_name=None).connect == "web.test:25"


def test_a_certificate_is_found_by_its_name() -> None:
    """And one that is not there is None."""
    config = make_config([make_certificate("www")])
    assert config.certificate("www") is config.certificates[0]
    assert config.certificate("mail") is None
    assert config.bundle("anchors") is None


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """Told with its path."""
    with pytest.raises(ConfigFault, match="cannot be read"):
        load(str(tmp_path / "agent.toml"))


def test_what_reads_it_does_not_stay_in_memory(tmp_path: Path) -> None:
    """The resident process reads it at its start and at a reload alone."""
    with pytest.raises(ConfigFault):
        load(str(tmp_path / "agent.toml"))
    assert "agents.loading" not in sys.modules
