"""Commands about upstreams and the built-in CA."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run


@pytest.mark.parametrize(
    ("arguments", "command", "given"),
    [
        (["upstream", "list"], "upstream_list", {}),
        (["upstream", "register", "ca", "--agree-to-terms"], "upstream_register",
         {"upstream": "ca", "agree_to_terms": True}),
        (["upstream", "check"], "upstream_check", {}),
        (["upstream", "resume", "ca", "--profile", "short"], "upstream_resume",
         {"upstream": "ca", "profile": "short"}),
        (["ca", "show"], "ca_show", {}),
        (["ca", "init", "--permit-name", "internal"], "ca_init",
         {"permitted_names": ["internal"], "permitted_networks": [], "unconstrained": False,
          "issuing_csr": False}),
        (["ca", "rotate", "prepare", "local", "--subject", "CN=Two"], "ca_rotate_prepare",
         {"upstream": "local", "subject": "CN=Two", "issuing_csr": False}),
        (["ca", "rotate", "activate", "local"], "ca_rotate_activate", {"upstream": "local"}),
        (["ca", "rotate", "retire", "--issuer", "ca-local-issuing-1"], "ca_rotate_retire",
         {"issuer": "ca-local-issuing-1"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_command_asks_for_what_its_line_says(
    run: Run, operations: FakeOperations, arguments: list[str], command: str, given: dict[str, Any]
) -> None:
    """Under the name that the operator socket knows."""
    status, out, _ = run(*arguments, "--json")
    assert status == 0
    json.loads(out)
    ((asked, arguments_given),) = operations.asked
    arguments_given.pop("actor")
    assert (asked, arguments_given) == (command, given)


def test_upstream_that_cannot_be_ordered_from_fails_the_check(
    run: Run, operations: FakeOperations
) -> None:
    """A script can ask before it relies on it."""
    operations.answers["upstream_check"] = [
        {"upstream": "ca", "community": "default", "faults": ["no account is registered"]}
    ]
    status, out, err = run("upstream", "check")
    assert status == 1
    assert "no account is registered" in out
    assert "not every upstream" in err


def test_suspensions_are_listed(run: Run, operations: FakeOperations) -> None:
    """The CA's default profile has no name of its own."""
    assert "(default)" in run("upstream", "list")[1]


def test_request_for_an_offline_root_is_written_to_a_file(
    run: Run, operations: FakeOperations, tmp_path: Path
) -> None:
    """And the answer of the root is read from one."""
    request = tmp_path / "issuing.csr"
    assert run("ca", "init", "--issuing-csr", str(request))[0] == 0
    assert request.read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----")
    chain, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    chain.write_text("chain")
    root.write_text("root")
    assert run("ca", "accept", str(chain), "--root", str(root))[0] == 0
    given = operations.asked[-1][1]
    assert (given["chain_pem"], given["anchors_pem"]) == ("chain", "root")


def test_names_are_not_for_a_request_to_permit(run: Run, operations: FakeOperations) -> None:
    """An offline root decides what its issuer may certify."""
    status, _, err = run("ca", "init", "--issuing-csr", "/dev/null", "--permit-name", "a")
    assert status == 2
    assert "offline root" in err
    assert operations.asked == []


def test_constraints_and_none_exclude_each_other(run: Run, operations: FakeOperations) -> None:
    """What the CA is held to is said once."""
    status, _, err = run("ca", "init", "--unconstrained", "--permit-name", "a")
    assert status == 2
    assert "--unconstrained excludes" in err
    assert operations.asked == []


def test_request_for_the_next_issuer_is_written_to_a_file(
    run: Run, operations: FakeOperations, tmp_path: Path
) -> None:
    """For the offline root's owner to take away."""
    file = tmp_path / "next.csr"
    status, out, _ = run("ca", "rotate", "prepare", "local", "--issuing-csr", str(file))
    assert status == 0
    assert file.read_text() == operations.answers["ca_rotate_prepare"]["csr_pem"]
    assert str(file) in out
    assert "5be1" in out
    assert operations.asked[0][1]["issuing_csr"]
