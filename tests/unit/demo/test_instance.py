"""The files of one broker of the demonstration; its process is tried in tests/e2e/test_demo.py."""

from pathlib import Path

import pytest

from broker.config.load import load_all
from broker.demo.instance import Instance, Ports
from broker.demo.processes import DemoFailed

UPSTREAM = {
    "kind": "acme",
    "directory": "https://127.0.0.1:1/acme/directory",
    "solvers": [{"challenge": "http-01"}],
}


def instance(directory: Path, **upstreams: dict[str, object]) -> Instance:
    """Return a broker with these upstreams before its own CA."""
    return Instance(
        name="the broker",
        directory=directory / "broker",
        ports=Ports(acme=8443, plain=8080, health=8081),
        validation_port=5002,
        hosts={"www.demo.internal": ["127.0.0.1"]},
        upstreams=upstreams,
        names=["www.demo.internal"],
        cap="10d",
    )


@pytest.mark.parametrize("upstreams", [{}, {"demo-ca": UPSTREAM}], ids=["the CA", "the broker"])
def test_files_are_a_whole_configuration(
    tmp_path: Path, upstreams: dict[str, dict[str, object]]
) -> None:
    """What `penstock check` would find faults with is not what anyone should begin from."""
    made = instance(tmp_path, **upstreams)
    made.write()
    config, policies = load_all(made.config)
    assert config.external_url == "https://127.0.0.1:8443"
    profile = policies.current("default").profiles["server"]
    assert [choice.upstream for choice in profile.choices] == [next(iter(upstreams), "local")]
    assert config.communities["default"].validation.http_port == 5002


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    """And another one each time."""
    first, second = instance(tmp_path / "a"), instance(tmp_path / "b")
    for made in (first, second):
        made.write()
        assert (made.directory / "passphrase").stat().st_mode & 0o777 == 0o600
    passphrases = {(made.directory / "passphrase").read_text() for made in (first, second)}
    assert len(passphrases) == 2


def test_clients_are_given_one_address(tmp_path: Path) -> None:
    """The directory, and the root that they have to trust."""
    made = instance(tmp_path)
    assert made.directory_url == "https://127.0.0.1:8443/acme/directory"
    assert made.root_file.parent == made.log_file.parent == made.directory


async def test_command_that_fails_is_told_with_its_sentence(tmp_path: Path) -> None:
    """The same that an operator would see; the same command works once its fault is mended."""
    made = instance(tmp_path)
    with pytest.raises(DemoFailed, match=r"penstock check failed: .*penstock\.yaml cannot be read"):
        await made.command("check")
    made.write()
    await made.command("check")


async def test_stopping_what_was_not_started_changes_nothing(tmp_path: Path) -> None:
    """A start that failed is stopped like any other."""
    await instance(tmp_path).stop()
