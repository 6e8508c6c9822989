"""The local port."""

from __future__ import annotations

import re

from agents.metrics import Answers, Figures, render

FIGURES = Figures(
    version='0.1"x',
    is_connected=True,
    is_ready=False,
    is_config_good=True,
    connections=3,
    waiting_out=1,
    waiting_work=2,
    identity_not_after=1.8e9,
    deliveries={"seen": 4},
    reloads={"done": 4, "failed": 0},
    certificates=[("www", 1_800_000_000, 4, True), ("mail", None, 0, False)],
)


def test_each_line_is_prometheus_text() -> None:
    """Each series has its help and its type before it, and labels are escaped."""
    lines = render(FIGURES).splitlines()
    sample = re.compile(r'penstock_agent_[a-z_]+(\{[a-z]+="(?:[^"\\]|\\.)*"\})? [0-9.e+]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert 'penstock_agent_build_info{version="0.1\\"x"} 1' in lines
    assert 'penstock_agent_certificate_seen{certificate="www"} 1' in lines
    assert "penstock_agent_ready 0" in lines


def test_a_certificate_that_is_not_there_has_no_end() -> None:
    """An end in 1970 would set off every alert."""
    shown = render(FIGURES)
    assert 'not_after_timestamp_seconds{certificate="www"} 1800000000' in shown
    assert 'not_after_timestamp_seconds{certificate="mail"}' not in shown


def answer(head: bytes, findings: list[str]) -> bytes:
    """Return what such a request gets."""
    return Answers(lambda: "metrics\n", lambda: findings).answer(head)


def test_paths_have_their_answers() -> None:
    """Readiness has its status, and tells why not."""
    assert b"metrics\n" in answer(b"GET /metrics HTTP/1.1\r\n\r\n", [])
    assert answer(b"GET /ready HTTP/1.1\r\n\r\n", []).startswith(b"HTTP/1.1 200")
    unready = answer(b"GET /readyz?verbose HTTP/1.1\r\n\r\n", ["www is missing"])
    assert unready.startswith(b"HTTP/1.1 503")
    assert unready.endswith(b"www is missing\n")
    assert answer(b"GET /live HTTP/1.1\r\n\r\n", ["x"]).startswith(b"HTTP/1.1 200")
    assert answer(b"HEAD /ready HTTP/1.1\r\n\r\n", []).endswith(b"\r\n\r\n")


def test_anything_else_is_refused() -> None:
    """Nothing can be changed here."""
    assert answer(b"POST /metrics HTTP/1.1\r\n\r\n", []).startswith(b"HTTP/1.1 405")
    assert answer(b"GET /secrets HTTP/1.1\r\n\r\n", []).startswith(b"HTTP/1.1 404")
    assert answer(b"\x16\x03\x01", []).startswith(b"HTTP/1.1 405")
