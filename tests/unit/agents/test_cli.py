"""The agent's command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agents import __version__, cli
from agents.state import State
from agents.waits import Waits

CONFIG = """
[node]
name = "web.example.test"
state = "{0}/state"
allowed = ["{0}"]
[broker]
url = "https://broker.example.test"
anchors = "{0}/anchors.pem"
[enrol]
method = "approval"
[[certificate]]
name = "www"
names = ["www.example.test"]
[certificate.files]
directory = "{0}/www"
[certificate.expects]
anchors = "{0}/anchors.pem"
"""

DAY_SECONDS = 86_400


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return the path of a configuration with one certificate, which is not there yet."""
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(tmp_path))
    return str(path)


def put_in_place(config: str, *, begun: float, ends: float) -> None:
    """Have the certificate be there, from days ago and for days."""
    now = round(Path(config).stat().st_mtime)
    document = {
        "generation": 1,
        "fingerprint": "f",
        "not_before": now - round(begun * DAY_SECONDS),
        "not_after": now + round(ends * DAY_SECONDS),
        "is_seen": True,
    }
    State(str(Path(config).parent / "state")).certificates.put("www", document)


def test_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is data, so it is printed to stdout and the exit code is 0."""
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"penstock-agent {__version__}\n"
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"penstock-agent {__version__}\n"
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


@pytest.mark.parametrize("words", [[], ["sing"], ["run", "--sing"], ["needs-renewal"]])
def test_a_command_line_that_cannot_be_used_is_misuse(words: list[str]) -> None:
    """Exit 2, as everywhere."""
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == cli.EXIT_MISUSED


@pytest.mark.parametrize("kind", ["ssh", "redfish"])
def test_a_driver_answers_for_its_device(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the settings that are named; one question comes in, one answer goes out."""
    question = {
        "version": 1,
        "operation": "csr",
        "certificate": "device",
        "names": ["device.example.test"],
        "key_kind": "ec-p256",
        "is_new_key": True,
    }
    asked = io.TextIOWrapper(io.BytesIO(json.dumps(question).encode()))
    monkeypatch.setattr("sys.stdin", asked)
    settings = tmp_path / "device.toml"
    settings.write_text('colour = "red"\n')
    assert cli.main(["driver", kind, str(settings)]) == cli.EXIT_FAILED
    answer = json.loads(capsys.readouterr().out)
    assert str(settings) in answer["error"]
    assert "colour" in answer["error"]


@pytest.mark.parametrize("words", [["ready"], ["status"], ["check"], ["needs-renewal", "www"]])
def test_a_configuration_that_cannot_be_used_is_misuse(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fault on a line of its own, then a hint."""
    path = tmp_path / "agent.toml"
    path.write_text('[node]\nname = "Web"\n')
    assert cli.main([words[0], "--config", str(path), *words[1:]]) == cli.EXIT_MISUSED
    said = capsys.readouterr()
    *errors, hint = said.err.splitlines()
    assert len(errors) > 2
    assert all(line.startswith("penstock-agent: error: ") for line in errors)
    assert hint.startswith("penstock-agent: hint: ")
    assert said.out == ""


def test_ready_tells_by_its_exit_code(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For a pod's start-up probe; nothing goes to stdout."""
    assert cli.main(["ready", "--config", config]) == cli.EXIT_FAILED
    assert "'www' is missing" in capsys.readouterr().err
    put_in_place(config, begun=1, ends=1)
    assert cli.main(["ready", "--config", config]) == cli.EXIT_DONE
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("begun", "ends", "code"),
    [(1, 9, 1), (8, 2, 0), (9, -1, 0)],
    ids=["fresh", "past-two-thirds", "ended"],
)
def test_needs_renewal_answers_by_its_exit_code(
    config: str, begun: float, ends: float, code: int
) -> None:
    """0: it does, 1: it does not, 2: there is nothing."""
    assert cli.main(["needs-renewal", "--config", config, "www"]) == 2
    put_in_place(config, begun=begun, ends=ends)
    assert cli.main(["needs-renewal", "--config", config, "www"]) == code


def test_status_shows_each_certificate(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON."""
    put_in_place(config, begun=1, ends=1)
    assert cli.main(["status", "--config", config]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "agent     not running"
    assert shown[2].startswith("seen      www  until ")
    assert "unchecked" not in shown[2]
    assert cli.main(["status", "--config", config, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["certificates"][0]["state"] == "seen"
    assert document["certificates"][0]["is_held_to_anchors"] is True
    assert document["process"] is None


def test_check_looks_the_host_over(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is data; a host that has all of it is fine."""
    assert cli.main(["check", "--config", config]) == cli.EXIT_FAILED
    assert "broker.anchors" in capsys.readouterr().out
    (Path(config).parent / "anchors.pem").touch()
    assert cli.main(["check", "--config", config, "--json"]) == cli.EXIT_DONE
    assert json.loads(capsys.readouterr().out) == {"findings": [], "warnings": []}


def test_a_certificate_of_any_ca_is_told(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a warning of check, which still succeeds, and in status."""
    path = Path(config)
    (path.parent / "anchors.pem").touch()
    anchors = f'[certificate.expects]\nanchors = "{path.parent}/anchors.pem"'
    unchecked = '[certificate.expects]\nanchors = "unchecked"'
    path.write_text(path.read_text().replace(anchors, unchecked))
    assert cli.main(["check", "--config", config]) == cli.EXIT_DONE
    shown = capsys.readouterr()
    place = "certificate[www].expects.anchors"
    assert shown.out == ""
    assert shown.err.startswith(f"penstock-agent: warning: {place}: unchecked")
    assert cli.main(["check", "--config", config, "--json"]) == cli.EXIT_DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["findings"], len(told["warnings"])) == ([], 1)
    assert cli.main(["status", "--config", config]) == cli.EXIT_DONE
    assert "anchors unchecked" in capsys.readouterr().out


def test_what_cannot_be_adopted_is_told(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing lies there."""
    path = str(Path(config).parent / "www")
    assert cli.main(["adopt", "--config", config, path]) == cli.EXIT_FAILED
    assert capsys.readouterr().err.startswith("penstock-agent: error: ")


def test_only_one_agent_runs_on_a_state(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one says why it does not."""
    state = State(str(Path(config).parent / "state"))
    state.hold()
    try:
        assert cli.main(["once", "--config", config, "--timeout", "1"]) == cli.EXIT_FAILED
    finally:
        state.release()
    assert "another agent runs on it" in capsys.readouterr().err


def test_ready_says_in_one_line_what_is_waited_for(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what the event of a failed probe shows; a change is seen by the next one."""
    assert cli.main(["ready", "--config", config]) == cli.EXIT_FAILED
    assert capsys.readouterr().err == (
        "penstock-agent: certificate 'www' is missing: the agent has not reached the broker yet\n"
    )
    state = State(str(Path(config).parent / "state"))
    Waits(state.own).tell("the broker refuses this node: no rule speaks of it")
    assert cli.main(["ready", "--config", config, "--wait", "0"]) == cli.EXIT_FAILED
    assert capsys.readouterr().err.endswith("no rule speaks of it\n")


def test_ready_that_may_wait_answers_at_once_when_all_is_there(config: str) -> None:
    """Nothing is waited for that is there; a unit test could not wait."""
    put_in_place(config, begun=1, ends=1)
    assert cli.main(["ready", "--config", config, "--wait", "600"]) == cli.EXIT_DONE


@pytest.mark.parametrize(("alive", "waited"), [(0.0, 8.0), (5.0, 3.0), (9.0, -1.0)])
def test_ready_answers_before_whoever_began_it_gives_up(
    config: str, monkeypatch: pytest.MonkeyPatch, alive: float, waited: float
) -> None:
    """A process that was slow to start waits for less: the kubelet counts from its own call."""
    asked: list[float] = []

    def wait(look: Callable[[], Sequence[str]], seconds: float) -> Sequence[str]:
        asked.append(seconds)
        return look()

    monkeypatch.setattr("agents.clock.seconds_alive", lambda: alive)
    monkeypatch.setattr("agents.waits.await_nothing", wait)
    assert cli.main(["ready", "--config", config, "--wait", "8"]) == cli.EXIT_FAILED
    assert asked == [waited]


def test_a_configuration_may_come_from_the_environment(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a pod has it; what cannot be read there is misuse as in a file."""
    monkeypatch.setenv("PENSTOCK_AGENT_CONFIG", Path(config).read_text())
    words = ["ready", "--config", "env:PENSTOCK_AGENT_CONFIG"]
    assert cli.main(words) == cli.EXIT_FAILED
    put_in_place(config, begun=1, ends=1)
    assert cli.main(words) == cli.EXIT_DONE
    monkeypatch.delenv("PENSTOCK_AGENT_CONFIG")
    assert cli.main(words) == cli.EXIT_MISUSED
    assert "env:PENSTOCK_AGENT_CONFIG: is not set" in capsys.readouterr().err
