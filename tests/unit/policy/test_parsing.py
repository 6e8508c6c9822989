"""Many files parsed one by one."""

import pytest

from broker.policy.parsing import parse_files, read_only
from tests.fakes.policy_folder import cases, policy


def test_faults_of_one_file_hide_no_other() -> None:
    """What is good is there, what is not is told with its file."""
    parsed = parse_files(
        {
            "b.yaml": b"kind: Policy\n",
            "a.yaml": policy(),
            "c.yaml": b"x: 1\n\xff",
            "d.yaml": cases(),
        }
    )
    assert list(parsed.made) == ["a.yaml", "d.yaml"]
    assert {fault.source for fault in parsed.faults} == {"b.yaml", "c.yaml"}
    assert ("c.yaml", 2, "is not UTF-8") in {(f.source, f.line, f.message) for f in parsed.faults}


def test_view_is_read_only() -> None:
    """As the one that it stands for in a pickle."""
    view = read_only({"a": 1})
    assert dict(view) == {"a": 1}
    with pytest.raises(TypeError):
        view["b"] = 2  # type: ignore[index]
