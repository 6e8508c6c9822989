"""A set of policies tried by a child process, before anybody stores it."""

from pathlib import Path

import pytest

from broker.config import policy_trial
from broker.config.policy_trial import PolicyTrials
from broker.issuance.errors import Broken, Unreachable
from tests.fakes.policy_folder import cases, policy
from tests.unit.config.conftest import write

PATIENT_SECONDS = 50.0
"""How long a child may take here, in seconds: on a machine that does much else its start alone
takes longer than an API server would wait."""

GOOD = {"default.yaml": policy(), "default-cases.yaml": cases()}


@pytest.fixture
def trials(tmp_path: Path) -> PolicyTrials:
    """The broker's configuration, with one directory of policies."""
    path = tmp_path / "penstock.yaml"
    path.write_text(write({"policies": ["/etc/penstock/policies/one"]}))
    return PolicyTrials(path, limit_seconds=PATIENT_SECONDS)


async def test_a_good_set_passes_with_its_cases(trials: PolicyTrials) -> None:
    """Files lie flat, as in a ConfigMap; what each is, it says itself."""
    faults, passed = await trials.run({"one": GOOD})
    assert faults == ()
    assert passed > 0


async def test_newer_configuration_than_the_file_counts(trials: PolicyTrials) -> None:
    """As one that was applied a moment ago; one that is none is told and not passed over."""
    newer = write({"policies": ["/etc/penstock/policies/one"]}).replace("local", "other")
    faults, _ = await trials.run({"one": GOOD}, newer.encode())
    assert "no upstream is called 'local' (configured are other)" in faults[0]
    with pytest.raises(Broken, match="the broker's configuration cannot be used"):
        await trials.run({"one": GOOD}, b"kind: [")


async def test_files_of_several_are_one_set(trials: PolicyTrials) -> None:
    """Named behind their directory; cases find the policy beside them, or by its whole name."""
    assert (await trials.run({"one": GOOD, "two": {}}))[0] == ()
    apart = {
        "one": {"default.yaml": policy()},
        "two": {
            "cases.yaml": cases().replace(b"policy: default.yaml", b"policy: one/default.yaml")
        },
    }
    faults, passed = await trials.run(apart)
    assert faults == ()
    assert passed > 0
    apart["two"]["cases.yaml"] = cases()
    assert "there is no policy 'default.yaml' here" in (await trials.run(apart))[0][0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "community 'default' has no policy"),
        ({"default.yaml": policy() + b"\nnonsense: 1\n"}, "default.yaml:"),
        ({"default.yaml": b"\xff"}, "default.yaml:1: is not UTF-8"),
        ({"default.yaml": policy(), "other.yml": b""}, "other.yml:1: is not read for its name"),
        ({"default.yaml": policy().replace(b"local", b"loyal")}, "no upstream is called 'loyal'"),
    ],
    ids=["none", "unknown-key", "no-text", "ending", "upstream"],
)
async def test_a_set_with_a_fault_is_told_with_its_place(
    trials: PolicyTrials, files: dict[str, bytes], said: str
) -> None:
    """As the broker would tell it."""
    faults, passed = await trials.run({"one": files})
    assert any(said in fault for fault in faults), faults
    assert passed == 0


async def test_a_case_that_fails_is_a_fault(trials: PolicyTrials) -> None:
    """With the file, the line and what was expected."""
    wrong = cases().replace(b"decision: allow", b"decision: refuse")
    assert wrong != cases()
    faults, _ = await trials.run({"one": {**GOOD, "default-cases.yaml": wrong}})
    assert faults
    assert all(fault.startswith("default-cases.yaml:") for fault in faults)


async def test_a_configuration_that_cannot_be_used_lets_nothing_be_tried(tmp_path: Path) -> None:
    """It is no fault of the policies'."""
    path = tmp_path / "penstock.yaml"
    with pytest.raises(Broken, match="cannot be read"):
        await PolicyTrials(path, limit_seconds=PATIENT_SECONDS).run({"one": GOOD})
    path.write_text("kind: Broker\n")
    with pytest.raises(Broken, match="the broker's configuration cannot be used"):
        await PolicyTrials(path, limit_seconds=PATIENT_SECONDS).run({"one": GOOD})


async def test_a_set_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """The API server does not wait for ever; another set passes afterwards."""
    path = tmp_path / "penstock.yaml"
    path.write_text(write({}))
    with pytest.raises(Unreachable, match=r"longer than 0.05 s"):
        await PolicyTrials(path, limit_seconds=0.05).run({"one": GOOD})
    assert (await PolicyTrials(path, limit_seconds=PATIENT_SECONDS).run({"one": GOOD}))[0] == ()


async def test_a_set_that_nobody_wrote_by_hand_is_not_begun(
    trials: PolicyTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen ConfigMaps full of it."""
    monkeypatch.setattr(policy_trial, "MAX_SET_BYTES", 1_000)
    faults, _ = await trials.run({"one": {"default.yaml": b"x" * 1_001}})
    assert faults == ("policies:1: are 1001 bytes long together, the limit is 1000 bytes",)


async def test_a_bomb_ends_with_the_child(trials: PolicyTrials) -> None:
    """Aliases of aliases: a fault, or the end of that process alone."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    bomb = "\n".join(lines).encode()
    try:
        faults, _ = await trials.run({"one": {"default.yaml": bomb}})
    except Unreachable:
        faults = ("ended",)
    assert faults
    assert (await trials.run({"one": GOOD}))[0] == ()


async def test_a_child_that_fails_is_told(
    trials: PolicyTrials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its last line; one that answers with something else is no answer."""
    worker = tmp_path / "worker.py"
    monkeypatch.setattr(policy_trial, "_WORKER", worker)
    worker.write_text("raise SystemExit('out of luck')")
    with pytest.raises(Unreachable, match="ended with 1: out of luck"):
        await trials.run({"one": GOOD})
    worker.write_text("print('[]')")
    with pytest.raises(Unreachable, match="answered with"):
        await trials.run({"one": GOOD})
