"""Policy files found, read and held against the configuration."""

from pathlib import Path

import pytest

from broker.config.load import load_all
from broker.config.policies import default_policies, load_policies
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Faults
from tests.unit.config.conftest import Parse, write

POLICY = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
cap: 90d
names: {{allow: ["**.internal"]}}
challenges: [http-01]
keys: {{allow: [ec-p256]}}
profiles:
  server:
    description: servers
    usages: [server-auth]
    upstreams: [{choice}]
default_profile: server
"""


def policy(choice: str = "{upstream: local}") -> str:
    """Return a policy whose one profile takes *choice*."""
    return POLICY.format(choice=choice)


def lines_of(caught: pytest.ExceptionInfo[Faults]) -> list[str]:
    """Return the faults as they are printed."""
    return [str(fault) for fault in caught.value.faults]


def test_shipped_policies_fit_the_smallest_configuration(parse: Parse) -> None:
    """Whoever writes no policy has the defaults, and the samples of other communities wait."""
    loaded = load_policies(parse())
    assert loaded.current("default").default_profile == "server"
    assert set(loaded.documents) == {"default"}
    assert loaded.unused == ()
    assert default_policies().is_dir()


def test_policy_of_no_community_is_noticed(tmp_path: Path, parse: Parse) -> None:
    """It may be one for later, or a misspelt name."""
    (tmp_path / "default.yaml").write_text(policy())
    (tmp_path / "later.yaml").write_text(policy().replace("community: default", "community: lab"))
    loaded = load_policies(parse({"policies": [str(tmp_path)]}))
    assert loaded.unused == (tmp_path / "later.yaml",)


def test_configured_directory_takes_the_place_of_the_shipped(tmp_path: Path, parse: Parse) -> None:
    """Its files are read, those of its communities/ too, and no others.

    Rules are shown to clients, so they name the file within the directory.
    """
    (tmp_path / "communities").mkdir()
    (tmp_path / "communities" / "mine.yaml").write_text(policy())
    (tmp_path / "notes.txt").write_text("not a policy")
    loaded = load_policies(parse({"policies": [str(tmp_path)]}))
    assert loaded.current("default").source == "communities/mine.yaml"


def test_documents_know_the_set_that_they_are_in_force_with(tmp_path: Path, parse: Parse) -> None:
    """By the digest that the history keeps; facts about CAs change that and not their own."""
    (tmp_path / "mine.yaml").write_text(policy())
    config = parse({"policies": [str(tmp_path)]})
    first = load_policies(config)
    facts = "apiVersion: penstock.dev/v1\nkind: UpstreamFacts\ndescriptions: {}\n"
    (tmp_path / "upstreams.yaml").write_text(facts)
    second = load_policies(config)
    for made in (first, second):
        assert made.current("default").policy_sha256 == made.texts.sha256
    assert first.texts.sha256 != second.texts.sha256
    assert first.current("default").sha256 == second.current("default").sha256


def test_community_without_policy_is_a_fault_at_its_line(tmp_path: Path) -> None:
    """No policy means nothing is issued, and nobody means that."""
    (tmp_path / "policies").mkdir()
    path = tmp_path / "penstock.yaml"
    path.write_text(write({"policies": [str(tmp_path / "policies")], "communities.default": {}}))
    with pytest.raises(Faults) as caught:
        load_all(path)
    (line,) = lines_of(caught)
    assert line.startswith(f"{path}:")
    assert "communities.default: community 'default' has no policy" in line


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("{upstream: locale}", "no upstream is called 'locale'"),
        ("{upstream: local, profile: sever}", "upstream 'local' profile 'sever' is not known"),
        ("{upstream: other}", "upstream 'other' does not serve community 'default'"),
    ],
    ids=["upstream", "profile", "community"],
)
def test_choice_that_leads_nowhere_is_a_fault_of_the_policy(
    tmp_path: Path, parse: Parse, choice: str, words: str
) -> None:
    """It is told at the rule, in the policy file."""
    (tmp_path / "default.yaml").write_text(policy(choice))
    (tmp_path / "lab.yaml").write_text(
        policy("{upstream: other}").replace("community: default", "community: lab")
    )
    config = parse(
        {
            "policies": [str(tmp_path)],
            "communities": {"default": {}, "lab": {}},
            "upstreams.other": {
                "kind": "acme",
                "directory": "https://ca.example/dir",
                "communities": ["lab"],
            },
        }
    )
    with pytest.raises(Faults) as caught:
        load_policies(config)
    (line,) = lines_of(caught)
    assert line.startswith(f"{tmp_path}/default.yaml:12: profiles.server.upstreams[0]: {words}")


def test_two_policies_for_one_community_are_a_fault(tmp_path: Path, parse: Parse) -> None:
    """Which of them holds must not depend on their names."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(policy())
    with pytest.raises(Faults) as caught:
        load_policies(parse({"policies": [str(tmp_path)]}))
    assert "has a policy already: a.yaml" in lines_of(caught)[0]


def test_faults_of_all_files_are_told_together(tmp_path: Path, parse: Parse) -> None:
    """Two broken policies are two faults, and no missing one beside them."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("kind: Policy\n")
    with pytest.raises(Faults) as caught:
        load_policies(parse({"policies": [str(tmp_path)]}))
    assert {fault.source for fault in caught.value.faults} == {
        str(tmp_path / "a.yaml"),
        str(tmp_path / "b.yaml"),
    }


def test_unknown_description_is_a_fault_with_the_nearest(parse: Parse) -> None:
    """A misspelt description must not silently mean that nothing is known."""
    upstream = {"kind": "acme", "directory": "https://ca.example/d", "description": "lets-encript"}
    with pytest.raises(Faults) as caught:
        load_policies(parse({"upstreams.ca": upstream}))
    (line,) = lines_of(caught)
    assert "no description 'lets-encript'" in line
    assert "did you mean 'lets-encrypt'?" in line


def test_overrides_are_laid_over_the_description(parse: Parse) -> None:
    """What the operator knows better wins for that upstream."""
    upstream = {
        "kind": "acme",
        "directory": "https://ca.example/d",
        "facts": {"honours_not_after": True, "is_ct_logged": False},
    }
    facts = load_policies(parse({"upstreams.ca": upstream})).facts["ca"]
    assert facts.honours_not_after
    assert not facts.is_ct_logged


def test_missing_directory_is_a_reason_to_stop(tmp_path: Path, parse: Parse) -> None:
    """It does not mean the defaults."""
    with pytest.raises(Broken, match="gone is not there"):
        load_policies(parse({"policies": [str(tmp_path / "gone")]}))
