"""A ConfigMap with policies is tried with all others before it is stored."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from broker.admission.cluster_api import Gone, NotThere
from broker.admission.denials import Malformed
from broker.admission.policies import Policies, Trial, files_of
from broker.admission.reviews import Admitted, Outcome, parse_review
from broker.issuance.errors import Broken, Conflict, Unreachable
from tests.fakes.fake_cluster import FakeCluster
from tests.fakes.pods import review

LABEL = "penstock.dev/policies"
PATH = "/api/v1/namespaces/penstock/configmaps"


def config_map(name: str, *, has_label: bool = True, **data: str) -> dict[str, Any]:
    """Return a ConfigMap; keys of *data* are without their ending."""
    labels = {LABEL: "all"} if has_label else {}
    return {
        "metadata": {"name": name, "labels": labels},
        "data": {f"{key}.yaml": text for key, text in data.items()},
    }


class World:
    """A cluster with ConfigMaps, and somebody who knows policies."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.tried: list[Mapping[str, Mapping[str, bytes]]] = []
        self.trial: Trial | Exception = Trial(faults=(), cases=3)
        self.configs: list[bytes | None] = []
        """Against which configuration each was held."""
        self._policies = Policies(
            self.cluster,
            self,
            namespace="penstock",
            label=LABEL,
            config=("penstock-config", "penstock.yaml"),
        )

    async def try_set(
        self, directories: Mapping[str, Mapping[str, bytes]], config: bytes | None
    ) -> Trial:
        """Say what the test wants."""
        self.tried.append(directories)
        self.configs.append(config)
        if isinstance(self.trial, Exception):
            raise self.trial
        return self.trial

    def put(self, document: dict[str, Any]) -> None:
        """Have a ConfigMap be there."""
        self.cluster.put(f"{PATH}/{document['metadata']['name']}", **document)

    async def answer(self, document: dict[str, Any] | None, **more: Any) -> Admitted:
        """Ask about a ConfigMap."""
        name = (document or {}).get("metadata", {}).get("name", "")
        given = {"kind": "ConfigMap", "namespace": "penstock", "name": name, **more}
        return await self._policies.answer(
            parse_review(json.dumps(review(document, **given)).encode())
        )


@pytest.fixture
def world() -> World:
    """One ConfigMap of policies, one of cases, and one that is none of ours."""
    made = World()
    made.put(config_map("web", web="kind: Policy"))
    made.put(config_map("tests", cases="kind: PolicyCases"))
    made.put(config_map("other", has_label=False, other="x"))
    return made


async def test_the_set_is_tried_as_it_would_be(world: World) -> None:
    """With the changed one in the place of what it is now, and the others as they are."""
    admitted = await world.answer(config_map("web", web="new"), operation="UPDATE")
    assert admitted.outcome == Outcome.ACCEPTED
    assert admitted.notes == {"cases": "3"}
    assert world.tried == [
        {"web": {"web.yaml": b"new"}, "tests": {"cases.yaml": b"kind: PolicyCases"}}
    ]


async def test_the_set_is_held_against_what_is_in_the_cluster_now(world: World) -> None:
    """A CA that came a moment ago is known; where nothing lies there, the mounted file counts."""
    await world.answer(config_map("web", web="new"), operation="UPDATE")
    world.put(config_map("penstock-config", has_label=False, penstock="kind: Broker"))
    await world.answer(config_map("web", web="new"), operation="UPDATE")
    world.put(config_map("penstock-config", has_label=False, other="x"))
    await world.answer(config_map("web", web="new"), operation="UPDATE")
    assert world.configs == [None, b"kind: Broker", None]


async def test_a_new_one_joins_the_set(world: World) -> None:
    """One whose label is taken away leaves it."""
    await world.answer(config_map("more", more="m"))
    assert set(world.tried[0]) == {"web", "tests", "more"}
    former = config_map("web", web="kind: Policy")
    plain = config_map("web", has_label=False)
    await world.answer(plain, operation="UPDATE", oldObject=former)
    assert set(world.tried[1]) == {"tests"}


@pytest.mark.parametrize(
    ("document", "more"),
    [
        (config_map("a", has_label=False), {}),
        (config_map("a"), {"namespace": "shop"}),
        (config_map("a"), {"kind": "Secret"}),
        (None, {"operation": "DELETE", "oldObject": config_map("a")}),
        ({"metadata": {"name": "a"}}, {}),
    ],
    ids=["no-label", "another-namespace", "another-kind", "delete", "no-labels"],
)
async def test_what_is_none_of_ours_is_let_through(
    world: World, document: Any, more: dict[str, Any]
) -> None:
    """Untried; a deletion too, or a release could not be taken away."""
    admitted = await world.answer(document, **more)
    assert (admitted.outcome, world.tried) == (Outcome.UNTOUCHED, [])


async def test_a_set_with_faults_is_refused_with_the_first(world: World) -> None:
    """Each with its file and line."""
    faults = [f"web/web.yaml:{n}: names: no upstream is called 'x'" for n in range(1, 8)]
    world.trial = Trial(faults=faults, cases=0)
    admitted = await world.answer(config_map("web", web="new"))
    assert (admitted.outcome, admitted.code) == (Outcome.REFUSED, 403)
    assert admitted.message.startswith(
        "penstock: these policies would not come into force: web/web.yaml:1: names: no upstream"
    )
    assert admitted.message.endswith("; and 2 more, see `penstock policy test`")


@pytest.mark.parametrize("fault", [Unreachable("took longer than 8 s"), Broken("no config")])
async def test_what_cannot_be_tried_is_not_let_through(world: World, fault: Exception) -> None:
    """It is no fault of the policies', and is told as what it is."""
    world.trial = fault
    admitted = await world.answer(config_map("web", web="new"))
    assert (admitted.outcome, admitted.code) == (Outcome.UNANSWERED, 503)
    assert f"could not be tried: {fault}" in admitted.message


@pytest.mark.parametrize("calls_before", [0, 1], ids=["policies", "configuration"])
@pytest.mark.parametrize(
    "fault",
    [
        Unreachable("no route"),
        Gone("the page is too old"),
        Broken("may not list"),
        Conflict("changed"),
        NotThere("no namespace"),
    ],
    ids=["away", "gone", "forbidden", "conflict", "not there"],
)
async def test_a_cluster_that_cannot_be_read_lets_nothing_through(
    world: World, fault: Exception, calls_before: int
) -> None:
    """The set is not known, or what it would be held against; each is told, and none a bug."""
    world.cluster.failing["list"] = [None] * calls_before + [fault]
    admitted = await world.answer(config_map("web", web="new"))
    assert (admitted.outcome, admitted.code) == (Outcome.UNANSWERED, 503)
    assert admitted.message == f"penstock: policies could not be tried: {fault}: try again"
    assert world.tried == []


def test_files_are_the_keys_that_are_policy_files() -> None:
    """Binary ones are told as files that are no text; notes are none."""
    document = {
        "data": {"web.yaml": "a", "README.md": "b", "old.yml": "c"},
        "binaryData": {"odd.yaml": "/w==", "logo.png": "AA=="},
    }
    assert files_of(document) == {"web.yaml": b"a", "old.yml": b"c", "odd.yaml": b"\xff"}
    with pytest.raises(Malformed):
        files_of({"data": {"web.yaml": 5}})
