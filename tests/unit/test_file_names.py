"""Each file of the product has its test, and each unit test has its file."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UNIT = REPOSITORY / "tests" / "unit"

SHOWN_ELSEWHERE: dict[str, str] = {
    "agents/hands.py": "tests/contract/agents/test_whole_agent.py",
    "agents/run.py": "tests/contract/agents/test_whole_agent.py",
    "agents/steps.py": "tests/unit/agents/test_renew.py",
    "agents/transport.py": "tests/contract/agents/test_transport.py",
    "agents/child.py": "tests/contract/agents/test_child.py",
    "agents/crafting.py": "tests/contract/agents/test_crafting.py",
    "agents/crafting_library.py": "tests/contract/agents/test_crafting.py",
    "agents/crafting_openssl.py": "tests/contract/agents/test_crafting.py",
    "agents/crafting_ports.py": "tests/contract/agents/test_crafting.py",
    "agents/crafting_token.py": "tests/contract/agents/test_token.py",
    "agents/challenge_ports.py": "tests/contract/agents/test_challenge_ports.py",
    "agents/drivers_redfish.py": "tests/contract/agents/test_driver_redfish.py",
    "agents/drivers_ssh.py": "tests/contract/agents/test_driver_ssh.py",
    "broker/admission/asking.py": "tests/contract/admission/test_asking.py",
    "broker/admission/cluster_api.py": "tests/contract/admission/test_cluster_api.py",
    "broker/admission/https.py": "tests/contract/admission/test_cluster_api.py",
    "broker/app/admission.py": "tests/contract/admission/test_whole.py",
    "broker/app/agents.py": "tests/e2e/test_nodes.py",
    "broker/app/beside.py": "tests/unit/app/test_serving.py",
    "broker/app/bundles.py": "tests/e2e/test_fleet.py",
    "broker/app/fleet.py": "tests/e2e/test_fleet.py",
    "broker/app/operator_api.py": "tests/e2e/test_operator_api.py",
    "broker/issuance/approval_ports.py": "tests/unit/storage/test_approvals.py",
    "broker/config/policy_child.py": "tests/contract/config/test_policy_child.py",
    "broker/config/policy_trial.py": "tests/contract/config/test_policy_trial.py",
    "broker/config/policy_trial_worker.py": "tests/contract/config/test_policy_trial.py",
    "broker/config/policy_worker.py": "tests/contract/config/test_policy_child.py",
    "broker/issuance/policy_ports.py": "tests/unit/issuance/test_policy_keeping.py",
    "broker/issuance/replay_ports.py": "tests/unit/storage/test_replays.py",
    "broker/issuance/audit_ports.py": "tests/unit/storage/test_audit.py",
    "broker/audit/syslog_tls.py": "tests/contract/audit/test_syslog_tls.py",
    "broker/issuance/bundle_ports.py": "tests/unit/issuance/test_bundles.py",
    "broker/issuance/quota_ports.py": "tests/unit/storage/test_buckets.py",
    "broker/app/failover.py": "tests/e2e/test_failover.py",
    "broker/issuance/freeze_ports.py": "tests/unit/storage/test_freezes.py",
    "broker/issuance/owner_ports.py": "tests/unit/storage/test_ownership.py",
    "broker/issuance/incident_ports.py": "tests/unit/issuance/test_incidents.py",
    "broker/issuance/rollout_ports.py": "tests/unit/issuance/test_rollouts.py",
    "broker/channel/application.py": "tests/e2e/test_nodes.py",
    "broker/channel/authentication.py": "tests/e2e/test_nodes.py",
    "broker/channel/ports.py": "tests/unit/channel/test_batches.py",
    "broker/config/agents.py": "tests/unit/config/test_agent_checks.py",
    "broker/issuance/node_ports.py": "tests/contract/storage/test_nodes.py",
    "broker/issuance/joining_ports.py": "tests/unit/issuance/test_joining.py",
    "broker/demo/serving.py": "tests/contract/demo/test_serving.py",
    "broker/demo/tls_server.py": "tests/contract/demo/test_tls_server.py",
    "broker/issuance/adoption_ports.py": "tests/unit/issuance/test_adoption.py",
    "broker/issuance/ports.py": "tests/contract",
    "broker/issuance/key_ports.py": "tests/contract/keys",
    "broker/issuance/account_ports.py": "tests/unit/issuance/test_account_health.py",
    "broker/web/answers_oversight.py": "tests/e2e/test_operator_api.py",
    "broker/web/answers_deliveries.py": "tests/unit/web/test_answers.py",
    "broker/web/answers_policies.py": "tests/unit/web/test_answers.py",
    "broker/web/answers_upstreams.py": "tests/unit/web/test_answers.py",
    "broker/web/answers_workloads.py": "tests/unit/operations/test_workloads.py",
    "broker/publishing/config_maps.py": "tests/contract/publishing/test_config_maps.py",
    "broker/web/guarded.py": "tests/contract/web/test_guarded.py",
    "broker/issuance/upstream_key_ports.py": "tests/unit/issuance/test_upstream_keys.py",
    "broker/upstreams/children.py": "tests/contract/upstreams/test_hook_program.py",
    "broker/upstreams/lexicon_worker.py": "tests/contract/upstreams/test_lexicon_worker.py",
    "broker/upstreams/rollover.py": "tests/contract/upstreams/test_key_change_peers.py",
    "broker/web/tls_alpn.py": "tests/contract/upstreams/test_tls_alpn.py",
    "broker/web/wirefaults.py": "tests/contract/web/test_wirefaults.py",
}
"""File → where it is shown instead, for adapters that only make sense against their other side.

The value is a test file or a suite below tests/, so that the reason can be looked up.
"""

OF_THE_HOUSE = frozenset({"test_file_names.py", "test_readme_help.py"})
"""Unit tests that belong to no file of the product."""


def is_empty(path: Path) -> bool:
    """Tell whether a file defines nothing: a package's docstring, or names passed on."""
    if path.name != "__init__.py":
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return not any(isinstance(node, kinds) for node in body)


def mirror_of(path: Path) -> Path:
    """Return where the test of a file of the product lies."""
    relative = path.relative_to(REPOSITORY)
    folder = UNIT / "agents" if relative.parts[0] == "agents" else UNIT
    stem = "init" if path.stem == "__init__" else path.stem.strip("_")
    return folder.joinpath(*relative.parts[1:-1], f"test_{stem}.py")


PRODUCT_FILES = sorted(
    path
    for package in ("broker", "agents")
    for path in (REPOSITORY / package).rglob("*.py")
    if not is_empty(path)
)


@pytest.mark.parametrize("path", PRODUCT_FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_file_has_its_test(path: Path) -> None:
    """A file of the product is mirrored below tests/unit, or listed with where it is shown."""
    elsewhere = SHOWN_ELSEWHERE.get(str(path.relative_to(REPOSITORY)))
    if elsewhere is None:
        expected = mirror_of(path)
        assert expected.is_file(), f"{expected.relative_to(REPOSITORY)} is missing"
    else:
        assert (REPOSITORY / elsewhere).exists(), f"{elsewhere} is not there"
        assert not mirror_of(path).exists(), "mirrored after all: take it off SHOWN_ELSEWHERE"


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without its __init__.py would escape the import contracts."""
    folders = {path.parent for path in PRODUCT_FILES}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_no_reason_outlives_its_file() -> None:
    """SHOWN_ELSEWHERE names only files that are there."""
    assert [name for name in SHOWN_ELSEWHERE if not (REPOSITORY / name).is_file()] == []


def test_every_unit_test_has_its_file() -> None:
    """A unit test whose file was moved or removed moves or goes with it."""
    mirrored = {mirror_of(path) for path in PRODUCT_FILES}
    stray = [
        str(path.relative_to(REPOSITORY))
        for path in UNIT.rglob("test_*.py")
        if path not in mirrored and not (path.parent == UNIT and path.name in OF_THE_HOUSE)
    ]
    assert stray == []
