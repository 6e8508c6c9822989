"""Reading the configuration, and what only shows when all of it is read."""

from pathlib import Path

import pytest

from broker.config.load import load_config
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Faults
from tests.unit.config.conftest import FaultsOf, Parse, write

ACME = {"kind": "acme", "directory": "https://ca.example/directory"}


def test_file_is_read(tmp_path: Path) -> None:
    """A good file gives a configuration."""
    path = tmp_path / "penstock.yaml"
    path.write_text(write({}))
    assert load_config(path).external_url == "https://acme.corp.example"


def test_missing_file_is_a_reason_to_stop(tmp_path: Path) -> None:
    """There is no default configuration to fall back on."""
    with pytest.raises(Broken, match=r"penstock\.yaml cannot be read: no such file"):
        load_config(tmp_path / "penstock.yaml")


def test_other_encodings_are_a_fault_with_its_line(tmp_path: Path) -> None:
    """A file in Latin-1 says where."""
    path = tmp_path / "penstock.yaml"
    path.write_bytes(b"# one\n# gr\xfc\xdfe\n")
    with pytest.raises(Faults) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:2: is not UTF-8"


def test_fault_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    """What an editor can jump to, with what was probably meant."""
    path = tmp_path / "penstock.yaml"
    path.write_text(write({}) + "limits:\n  finalise_wait: 5s\n")
    with pytest.raises(Faults) as caught:
        load_config(path)
    line = len(write({}).splitlines()) + 2
    assert f"{path}:{line}: limits.finalise_wait: unknown key" in str(caught.value)
    assert "did you mean 'finalize_wait'?" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"upstreams.local.communities": ["default", "lab"]},
            "upstreams.local.communities[1]: no community is called 'lab'",
        ),
        ({"communities": {"default": {}, "lab": {}}}, "communities.lab: community 'lab' is served"),
        ({"listen.acme.from": "locale"}, "listen.acme.from: no upstream is called"),
        (
            {"upstreams.local.profiles": {"client": {"usages": ["client-auth"]}}},
            "listen.acme.from: the built-in upstream has no profile with the usage server-auth",
        ),
        ({"listen.plain": None}, "upstreams.local: upstream 'local' publishes its issuers"),
        (
            {"external_account_bindings": [
                {"key_id": "a", "mac_key": "env:A"}, {"key_id": "a", "mac_key": "env:A"}]},
            "external_account_bindings[1].key_id: key id 'a' stands here twice",
        ),
        (
            {"external_account_bindings": [
                {"key_id": "a", "mac_key": "env:A", "community": "lab"}]},
            "external_account_bindings[0].community: no community is called 'lab'",
        ),
    ],
    ids=["community", "unserved", "issuer", "no-server", "no-plain", "twice", "key-community"],
)  # fmt: skip
def test_names_that_lead_nowhere_are_faults(
    faults_of: FaultsOf, changes: dict[str, object], fault: str
) -> None:
    """A reference to what is not there is found before anything starts."""
    assert [each for each in faults_of(changes) if each.startswith(fault)]


def test_socket_path_fits_into_a_socket_address(faults_of: FaultsOf, parse: Parse) -> None:
    """The kernel would refuse it when the broker starts, and every command after that."""
    longest = "/" + "a" * 93 + "/operator.sock"[:13]
    assert len(longest) == 107
    parse({"listen.operator": {"socket": longest}})
    (fault,) = faults_of({"listen.operator": {"socket": longest + "b"}})
    assert fault.startswith("listen.operator.socket: the operator socket's path /aaa")
    assert "is 108 bytes long, the limit is 107" in fault
    (fault,) = faults_of({"state": "/" + "a" * 100})
    assert fault.startswith("state: ")
    parse({"state": "/" + "a" * 100, "listen.operator": {"socket": "/run/penstock.sock"}})


def test_http_solver_needs_the_plain_listener(faults_of: FaultsOf, parse: Parse) -> None:
    """Its answers are served there; a CA that is asked by DNS does without."""
    by_http = {
        "listen": {"acme": {"certificate": "/a", "key": "/b"}},
        "upstreams": {"ca": {**ACME, "solvers": [{"challenge": "http-01"}]}},
    }
    (fault,) = faults_of(by_http)  # type: ignore[arg-type]
    assert "has its http-01 challenges answered at the plain listener" in fault
    parse({**by_http, "upstreams": {"ca": ACME}})
