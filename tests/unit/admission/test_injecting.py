"""A pod that asks is injected, or refused with a sentence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from broker.admission.injecting import Injecting
from broker.admission.reviews import Admitted, Outcome, format_review, parse_review
from broker.admission.verdicts import Reason, Verdict, Workload
from broker.issuance.errors import Broken, Unreachable
from tests.fakes.pods import PREFIX, patched, pod, review, settings


class World:
    """A webhook with a broker and Services that do as a test says."""

    def __init__(self) -> None:
        self.verdict: Verdict | Exception = Verdict(is_allowed=True, names=("web.shop.svc",))
        self.asked: list[Workload] = []
        self.seconds: list[float] = []
        self.hurried: list[str] = []
        self.is_known = True
        self._injecting = Injecting(
            prefix=PREFIX,
            settings=settings(),
            reviewer=self,
            services=self,
            on_namespace=self.hurried.append,
        )

    async def review(self, workload: Workload, seconds: float) -> Verdict:
        """Say what the test wants."""
        self.asked.append(workload)
        self.seconds.append(seconds)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Select by one label."""
        return [f"{labels.get('app')}-{namespace}"]

    async def answer(self, document: Mapping[str, Any] | None, **more: Any) -> Admitted:
        """Ask about a pod."""
        asked = parse_review(json.dumps(review(document, **more)).encode())
        return await self._injecting.answer(asked, 7.0)


@pytest.fixture
def world() -> World:
    """A broker that grants one name."""
    return World()


async def test_a_pod_that_asks_is_injected(world: World) -> None:
    """With the names that policy gives it, asked for as what it is."""
    document = pod()
    admitted = await world.answer(document)
    assert admitted.outcome == Outcome.INJECTED
    found = patched(document, format_review("u", admitted))
    assert found["spec"]["initContainers"][0]["name"] == "penstock-agent"
    assert 'names = ["web.shop.svc"]' in found["spec"]["initContainers"][0]["env"][0]["value"]
    assert world.asked == [
        Workload(
            namespace="shop",
            service_account="web",
            pod="web-7d9f-",
            services=("web-shop",),
            names=(),
            profile="",
        )
    ]
    assert world.seconds == [7.0]
    assert world.hurried == ["shop"]
    assert admitted.notes["names"] == "web.shop.svc"


async def test_what_was_injected_is_let_through(world: World) -> None:
    """When another webhook has it looked at again, and when somebody copies a pod that runs."""
    document = pod()
    once = patched(document, format_review("u", await world.answer(document)))
    again = await world.answer(once)
    assert (again.outcome, again.patch) == (Outcome.UNTOUCHED, ())
    assert len(world.asked) == 1


async def test_an_annotation_that_says_so_alone_injects_nothing_less(world: World) -> None:
    """A template that was copied with it is injected all the same."""
    admitted = await world.answer(pod({"status": "injected"}))
    assert admitted.outcome == Outcome.INJECTED


@pytest.mark.parametrize(
    ("document", "more"),
    [
        ({"metadata": {}, "spec": {}}, {}),
        (pod({"inject": "false"}), {}),
        (pod(), {"operation": "UPDATE"}),
        (pod(), {"operation": "DELETE"}),
        (pod(), {"kind": "Deployment"}),
        (pod(), {"subResource": "ephemeralcontainers", "operation": "CREATE"}),
        (None, {"operation": "CONNECT"}),
    ],
    ids=["silent", "no", "update", "delete", "other", "ephemeral", "none"],
)
async def test_what_does_not_ask_is_left_alone(
    world: World, document: Any, more: dict[str, Any]
) -> None:
    """And nobody is asked about it."""
    admitted = await world.answer(document, **more)
    assert (admitted.outcome, admitted.patch, admitted.is_allowed) == (Outcome.UNTOUCHED, (), True)
    assert world.asked == []


async def test_a_pod_that_a_kubelet_reports_is_left_alone(world: World) -> None:
    """It runs already."""
    document = pod()
    document["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
    assert (await world.answer(document)).outcome == Outcome.UNTOUCHED


async def test_a_pod_that_asks_for_more_is_refused_with_the_reason(world: World) -> None:
    """Which pod, which annotation, what policy says and where."""
    reason = Reason(
        check="names",
        detail="'bank.example' is covered by none of the cluster's patterns",
        rule="shop",
        file="clusters.yaml",
        line=7,
    )
    world.verdict = Verdict(is_allowed=False, names=(), reasons=(reason,))
    admitted = await world.answer(pod({"names": "bank.example"}))
    assert (admitted.outcome, admitted.code, admitted.patch) == (Outcome.REFUSED, 403, ())
    assert admitted.message == (
        "penstock: pod 'web-7d9f-…' in namespace 'shop': annotation 'penstock.dev/names' asks for "
        "more than policy grants: 'bank.example' is covered by none of the cluster's patterns "
        "(rule shop, clusters.yaml:7)"
    )
    assert world.hurried == []
    silent = await world.answer(pod())
    assert "policy grants it no certificate: 'bank.example'" in silent.message


async def test_a_pod_whose_annotations_are_wrong_is_refused_without_asking(world: World) -> None:
    """It would be refused whatever policy says."""
    admitted = await world.answer(pod({"path": "tls"}))
    assert admitted.outcome == Outcome.REFUSED
    assert "annotation 'penstock.dev/path' has 'tls': expected" in admitted.message
    assert world.asked == []


@pytest.mark.parametrize(
    "fault", [Unreachable("the broker cannot be reached: no route"), Broken("who are you")]
)
async def test_without_the_broker_nobody_comes_in(world: World, fault: Exception) -> None:
    """The sentence says so, and it is no refusal of policy's."""
    world.verdict = fault
    admitted = await world.answer(pod())
    assert (admitted.outcome, admitted.code) == (Outcome.UNANSWERED, 503)
    assert f"{fault}: it is let in once the broker can be asked" in admitted.message
    assert (await world.answer(pod({"inject": "false"}))).is_allowed


async def test_before_the_services_are_known_nobody_comes_in(world: World) -> None:
    """A name could be missing from those it gets."""
    world.is_known = False
    admitted = await world.answer(pod())
    assert admitted.outcome == Outcome.UNANSWERED
    assert "Services of the cluster have not been read yet" in admitted.message


async def test_names_that_were_not_asked_for_are_not_taken(world: World) -> None:
    """What was asked for may come in another order."""
    world.verdict = Verdict(is_allowed=True, names=("b.test", "a.test"))
    assert (await world.answer(pod({"names": "a.test,b.test"}))).outcome == Outcome.INJECTED
    admitted = await world.answer(pod({"names": "a.test"}))
    assert admitted.outcome == Outcome.UNANSWERED
    assert "about other names than were asked for" in admitted.message


async def test_a_dry_run_is_answered_alike_and_writes_nothing(world: World) -> None:
    """The roots are brought to its namespace when there is a pod."""
    admitted = await world.answer(pod(), dryRun=True)
    assert admitted.outcome == Outcome.INJECTED
    assert world.hurried == []


async def test_what_is_odd_is_warned_of(world: World) -> None:
    """And let through."""
    admitted = await world.answer(pod(hostPID=True))
    assert admitted.is_allowed
    assert "hostPID" in admitted.warnings[0]


async def test_a_pod_of_three_megabytes_is_answered(world: World) -> None:
    """What is large is not ours to judge."""
    document = pod()
    document["metadata"]["annotations"]["notes.example/text"] = "x" * 3_000_000
    assert (await world.answer(document)).outcome == Outcome.INJECTED


@pytest.mark.parametrize("policy", ["Never", "OnFailure", "Always"])
async def test_a_job_is_injected_as_anything_else(world: World, policy: str) -> None:
    """The sidecar stays by its own policy, and goes when the work is done."""
    admitted = await world.answer(pod(restartPolicy=policy))
    assert admitted.outcome == Outcome.INJECTED
