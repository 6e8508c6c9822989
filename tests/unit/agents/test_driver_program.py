"""A driver's program reads one question, answers it once, and refuses what could harm a device."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.driver_program import DeviceFault, Question, answer_one, read_settings

GOOD = {
    "version": 1,
    "operation": "csr",
    "certificate": "device",
    "names": ["device.example", "*.device.example", "192.0.2.7", "2001:db8::7"],
    "key_kind": "ec-p256",
    "is_new_key": True,
}


def ask(question: object, act: Any = None) -> tuple[int, dict[str, Any]]:
    """Return exit status and answer to *question*."""
    octets = question if isinstance(question, bytes) else json.dumps(question).encode()
    answered = io.StringIO()
    status = answer_one(
        act or (lambda _: {"done": True}), asked=io.BytesIO(octets), answered=answered
    )
    found: dict[str, Any] = json.loads(answered.getvalue())
    return status, found


def test_question_is_answered() -> None:
    """What is asked comes to the device's part, and its answer goes out."""
    seen: list[Question] = []

    def act(question: Question) -> Mapping[str, Any]:
        seen.append(question)
        return {"csr_pem": "x"}

    assert ask(GOOD, act) == (0, {"csr_pem": "x"})
    assert seen[0].names == tuple(GOOD["names"])  # type: ignore[arg-type]
    assert (seen[0].operation, seen[0].is_new_key) == ("csr", True)


def test_device_that_says_no_is_an_answer() -> None:
    """A fault is told as one, with whether trying again helps."""

    def act(question: Question) -> Mapping[str, Any]:
        raise DeviceFault("the device is off", is_final=False)

    assert ask(GOOD, act) == (1, {"error": "the device is off", "is_final": False})


@pytest.mark.parametrize(
    "changes",
    [
        {"names": []},
        {"names": ["a b"]},
        {"names": ["$(reboot)"]},
        {"names": ["a;b"]},
        {"names": ["a\nb"]},
        {"names": ["-x"]},
        {"names": ["a.*.b"]},
        {"names": "ab\n"},
        {"certificate": "../x"},
        {"certificate": "a b"},
        {"key_kind": "rsa-512; reboot"},
        {"fingerprint": "ab"},
        {"operation": None, "names": None},
    ],
)
def test_what_could_harm_a_command_line_is_refused(changes: dict[str, object]) -> None:
    """No part of a question is more than a harmless word."""
    status, answer = ask({**GOOD, **changes})
    assert status == 1
    assert answer["is_final"] is True
    assert ask(GOOD) == (0, {"done": True})


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b"[" * 10_000, b"\xff"])
def test_question_that_cannot_be_read_is_refused(octets: bytes) -> None:
    """What is no question is answered with a fault."""
    assert ask(octets)[1]["error"] == "the question cannot be read"


def test_settings_are_read(tmp_path: Path) -> None:
    """A device's file has texts, numbers, lists and references to secrets."""
    (tmp_path / "secret").write_text("s3cret\n")
    path = tmp_path / "device.toml"
    path.write_text(f'host = "h"\nport = 8\npins = ["a"]\npassword = "file:{tmp_path}/secret"\n')
    settings = read_settings(str(path), ("host", "port", "pins", "password"))
    assert (settings.text("host"), settings.number("port", 1)) == ("h", 8)
    assert (settings.texts("pins"), settings.secret("password")) == (("a",), "s3cret")
    assert (settings.text("more", "default"), settings.number("more", 3)) == ("default", 3)


@pytest.mark.parametrize("text", ['host = 1\nport = "x"\npins = "y"\npassword = "s3cret"\n'])
def test_settings_of_a_wrong_kind_are_faults(tmp_path: Path, text: str) -> None:
    """A value of another kind is told by its key and never shown."""
    path = tmp_path / "device.toml"
    path.write_text(text)
    settings = read_settings(str(path), ("host", "port", "pins", "password"))
    reads = (
        lambda: settings.text("host"),
        lambda: settings.number("port", 1),
        lambda: settings.texts("pins"),
        lambda: settings.secret("password"),
        lambda: settings.text("missing"),
    )
    for read in reads:
        with pytest.raises(DeviceFault) as caught:
            read()
        assert "s3cret" not in str(caught.value)


def test_settings_that_are_no_settings_are_faults(tmp_path: Path) -> None:
    """A file that is missing, no TOML, or has a key that nobody knows is refused."""
    path = tmp_path / "device.toml"
    with pytest.raises(DeviceFault, match="cannot be read"):
        read_settings(str(path), ())
    path.write_text("host")
    with pytest.raises(DeviceFault, match="cannot be read"):
        read_settings(str(path), ())
    path.write_text('hots = "h"')
    with pytest.raises(DeviceFault, match="'hots' is not known here"):
        read_settings(str(path), ("host",))
