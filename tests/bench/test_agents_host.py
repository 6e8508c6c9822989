"""A whole host is measured, small; `python -m bench.agents_host` does the same with thousands."""

from pathlib import Path

import pytest

from bench.agents_host import measure_host

pytestmark = [pytest.mark.peers, pytest.mark.e2e]


def test_a_host_with_several_certificates_is_measured(tmp_path: Path) -> None:
    """All of them are seen, and each figure is one."""
    told: list[str] = []
    made = measure_host(tmp_path, 4, 2, told.append, settle_seconds=1.0)
    assert (made.certificates, made.organisations) == (4, 2)
    assert made.owners in {1, 2}
    assert 0 < made.first_seconds <= made.all_seconds
    assert 0 < made.longest_seconds <= made.all_seconds
    assert made.agent_cpu_seconds > 0
    assert made.peak_mib >= made.resident_mib > made.private_mib > 0
    assert told[-1] == str(made)
