"""Rules of clusters: what they make of a pod, and what they make nothing of."""

from typing import Any

import pytest

from broker.issuance.cluster_rules import MAX_NAMES, Cluster, fill, grant_of
from broker.protocol.service_account_token import ServiceAccount, TokenRejected
from tests.fakes.cluster_pods import FakePods
from tests.unit.issuance.test_vouching import cluster, rule

POSTFIX = ServiceAccount(namespace="mail", name="postfix", pod="postfix-0", node=None, pod_uid="u")
SERVED = {"postfix-0": {"app": "postfix", "tier": "edge"}}
SMTP = {"app": "postfix"}


def with_pods(*names: str, pods: FakePods | None = None) -> Cluster:
    """Return a cluster whose only rule has these names."""
    known = FakePods(SERVED, {"smtp": SMTP}) if pods is None else pods
    return cluster(rule(names=names), pods=known)


async def granted(made: Cluster, account: ServiceAccount = POSTFIX) -> tuple[str, ...]:
    """Return the names of a pod of *account* by the rules of a cluster."""
    services = await made.services_of(made.rule_for(account), account)
    return grant_of(made, account, services).names


async def test_each_service_that_selects_the_pod_makes_a_name() -> None:
    """Beside the names that hang on none; another's Service makes none."""
    pods = FakePods(SERVED, {"smtp": SMTP, "edge": {"tier": "edge"}, "imap": {"app": "dovecot"}})
    made = with_pods("{service}.{namespace}.svc", "{service}.svc", "mail.example", pods=pods)
    assert await granted(made) == (
        "edge.mail.svc",
        "smtp.mail.svc",
        "edge.svc",
        "smtp.svc",
        "mail.example",
    )
    assert pods.asked == ["pod mail/postfix-0 u", "services mail"]


async def test_pod_without_services_has_the_names_that_are_left() -> None:
    """An empty list would mean whatever policy says, so a rule that has nothing left refuses."""
    nobody = FakePods({"postfix-0": {}}, {"smtp": SMTP})
    assert await granted(with_pods("{service}.svc", "mail.example", pods=nobody)) == (
        "mail.example",
    )
    with pytest.raises(TokenRejected, match="no Service selects"):
        await granted(with_pods("{service}.svc", pods=nobody))
    assert await granted(cluster(rule(names=()))) == ()


async def test_pod_that_is_gone_is_refused_whatever_its_rule_wants() -> None:
    """Its token may be good for an hour more."""
    pods = FakePods(SERVED, {})
    assert await granted(with_pods("mail.example", pods=pods)) == ("mail.example",)
    assert pods.asked == ["pod mail/postfix-0 u"]
    pods.pods.clear()
    with pytest.raises(TokenRejected, match="is gone"):
        await granted(with_pods("mail.example", pods=pods))


async def test_services_that_nobody_can_tell_are_no_services() -> None:
    """Without an API server, or for a token that is bound to no pod."""
    with pytest.raises(TokenRejected, match="nobody can tell"):
        await granted(cluster(rule(names=("{service}.svc",))))
    unbound = ServiceAccount(namespace="mail", name="postfix", pod=None, node=None)
    with pytest.raises(TokenRejected, match="nobody can tell"):
        await granted(with_pods("{service}.svc"), unbound)


async def test_names_without_end_are_refused() -> None:
    """Whoever makes Services in a namespace makes names."""
    many = {f"s{number}": SMTP for number in range(MAX_NAMES + 1)}
    with pytest.raises(TokenRejected, match="at most 100"):
        await granted(with_pods("{service}.svc", pods=FakePods(SERVED, many)))


def test_grant_tells_the_workload_and_its_upstreams() -> None:
    """What the node keeps of where it came from; one that is no pod's stays like a host."""
    found = grant_of(cluster(rule(upstreams=("local",))), POSTFIX, ())
    assert (found.cluster, found.pod, found.pod_uid) == ("prod", "postfix-0", "u")
    assert found.upstreams == ("local",)
    shared = grant_of(cluster(rule(node="{service_account}.{cluster}")), POSTFIX, ())
    assert (shared.cluster, shared.pod, shared.takes_over) == ("prod", None, False)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (rule(namespaces=("web",)), "no rule of cluster"),
        (rule(node="{pod}.prod"), None),
        (rule(node="{pod}.{pod}."), "node of"),
        (rule(names=("{pod}..x",)), "names of"),
    ],
    ids=["no rule", "good", "no name for a node", "no pattern"],
)
def test_rule_that_makes_no_names_refuses(made: Any, words: str | None) -> None:
    """With what is wrong, for the operator."""
    if words is None:
        assert grant_of(cluster(made), POSTFIX, ()).node == "postfix-0.prod"
        return
    with pytest.raises(TokenRejected, match=words):
        grant_of(cluster(made), POSTFIX, ())


def test_word_without_value_is_noticed() -> None:
    """A name with a hole in it would be another's."""
    with pytest.raises(KeyError):
        fill("{pod}.x", {"namespace": "mail"})
    assert fill("{pod}.x", {"pod": "a"}) == "a.x"
