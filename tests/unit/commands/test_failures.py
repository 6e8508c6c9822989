"""How a command fails."""

import click
import pytest

from broker.commands.failures import CommandFailed, Misconfigured, readable
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Fault, Faults


def test_every_fault_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, before the one that sums them up."""
    faults = [Fault("a.yaml", 2, "b", "is wrong"), Fault("a.yaml", 1, "", "is odd", "mend it")]
    with pytest.raises(Misconfigured, match="2 faults"), readable():
        raise Faults(faults)
    assert capsys.readouterr().err == "a.yaml:1: is odd (mend it)\na.yaml:2: b: is wrong\n"


def test_unreadable_file_is_misuse() -> None:
    """Nothing was tried."""
    with pytest.raises(Misconfigured, match="cannot be read") as caught, readable():
        raise Broken("a.yaml cannot be read")
    assert caught.value.exit_code == 2


def test_failure_has_a_hint_and_exit_status() -> None:
    """As the command line prints them."""
    failed = CommandFailed("no", "look")
    assert (failed.message, failed.hint, failed.exit_code) == ("no", "look", 1)
    assert isinstance(failed, click.ClickException)
