"""Where the sidecar fits into a pod, and whom its key is for."""

from typing import Any

import pytest

from broker.admission.annotations import parse_wanted
from broker.admission.denials import Denied, Malformed
from broker.admission.pods import CONTAINER, Place, find_place, is_injected, parse_pod
from tests.fakes.pods import PREFIX, pod


def place(document: dict[str, Any]) -> Place:
    """Return where the sidecar goes."""
    made = parse_pod(document, "shop")
    return find_place(made, parse_wanted(made.annotations, PREFIX), PREFIX)


def container(name: str, user: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a container that runs as *user*."""
    made: dict[str, Any] = {"name": name, "image": "x", **more}
    if user is not None:
        made["securityContext"] = {"runAsUser": user}
    return made


def test_a_pod_is_read() -> None:
    """With what the server fills in, and what it makes up."""
    made = parse_pod(pod(), "shop")
    assert (made.name, made.service_account, made.labels) == ("web-7d9f-", "web", {"app": "web"})
    assert made.shown == "pod 'web-7d9f-…'"
    assert not made.is_mirror
    bare = parse_pod({"metadata": {"name": "a"}, "spec": {}}, "shop")
    assert (bare.service_account, bare.containers, bare.shown) == ("default", (), "pod 'a'")
    assert parse_pod({}, "shop").shown == "pod 'without a name'"


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": {}},
        {"containers": ["web"]},
        {"initContainers": "x"},
        {"volumes": [None]},
        {"serviceAccountName": 5},
    ],
)
def test_what_is_no_pod_is_no_api_servers(spec: dict[str, Any]) -> None:
    """Whoever sent it."""
    with pytest.raises(Malformed):
        parse_pod({"spec": spec}, "shop")
    with pytest.raises(Malformed):
        parse_pod({"metadata": {"labels": {"a": 5}}}, "shop")


def test_the_key_is_for_the_applications_own_user() -> None:
    """Its own, or the pod's where it has none; the group likewise."""
    assert place(pod()) == Place(user=1000, group=1000, containers=(0,))
    context = {"runAsUser": 2000, "runAsGroup": 3000}
    found = place(pod(containers=[container("web")], securityContext=context))
    assert (found.user, found.group) == (2000, 3000)
    found = place(pod(containers=[container("web", 1000)], securityContext=context))
    assert (found.user, found.group) == (1000, 3000)


def test_an_image_that_has_its_own_user_needs_its_number() -> None:
    """The webhook cannot look into images."""
    document = pod(containers=[container("web")])
    with pytest.raises(Denied, match=r"as which user container 'web' runs: set runAsUser, or"):
        place(document)
    assert place(pod({"user": "101"}, containers=[container("web")])).user == 101


def test_containers_of_several_users_cannot_share_a_key() -> None:
    """Unless those that need it are named and are one."""
    both = [container("web", 1000), container("log", 2000)]
    with pytest.raises(Denied, match=r"'web' as 1000 and 'log' as 2000.*penstock.dev/containers"):
        place(pod(containers=both))
    found = place(pod({"containers": "log"}, containers=both))
    assert (found.user, found.containers) == (2000, (1,))


def test_one_container_that_says_nothing_is_not_taken_for_the_others() -> None:
    """It may run as anybody."""
    with pytest.raises(Denied, match="as which user container 'log' runs"):
        place(pod(containers=[container("web", 1000), container("log")]))


def test_an_application_of_root_says_whom_the_key_is_for() -> None:
    """The agent never is root; whoever is root in its container reads the file all the same."""
    with pytest.raises(Denied, match="runs as root, and the agent does not"):
        place(pod(containers=[container("web", 0)]))
    assert place(pod({"user": "65532"}, containers=[container("web", 0)])).user == 65532


def test_a_user_that_contradicts_the_pod_is_refused() -> None:
    """The key would be for somebody who is not there."""
    with pytest.raises(Denied, match=r"penstock.dev/user' is 101, and a container runs as 1000"):
        place(pod({"user": "101"}))
    assert place(pod({"user": "1000"})).user == 1000


@pytest.mark.parametrize("user", [-1, 2**31, "1000", True, 1.5])
def test_a_user_that_is_no_number_is_no_api_servers(user: Any) -> None:
    """They are checked there."""
    with pytest.raises(Malformed):
        place(pod(containers=[{"name": "web", "securityContext": {"runAsUser": user}}]))


def test_containers_before_the_application_get_files_when_they_are_named() -> None:
    """All of them start after the certificate is there, for the sidecar is the first."""
    before = [container("migrate", 1000), container("other", 5)]
    found = place(pod({"containers": "web,migrate"}, initContainers=before))
    assert (found.containers, found.init_containers) == ((0,), (0,))
    assert place(pod(initContainers=before)).init_containers == ()


def test_a_container_that_is_not_there_is_refused() -> None:
    """An ephemeral one too: a pod has none when it is made."""
    document = pod({"containers": "wbe"}, ephemeralContainers=[container("debugger")])
    with pytest.raises(Denied, match=r"names 'wbe', which the pod does not have: it has web"):
        place(document)
    with pytest.raises(Denied, match="'debugger', which the pod does not have"):
        place(pod({"containers": "debugger"}, ephemeralContainers=[container("debugger")]))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"containers": [container(CONTAINER, 1000)]}, "container 'penstock-agent' is there"),
        ({"initContainers": [container(CONTAINER)]}, "container 'penstock-agent' is there"),
        ({"volumes": [{"name": "penstock-tls", "emptyDir": {}}]}, "volume 'penstock-tls' is there"),
        ({"volumes": [{"name": "penstock-token"}]}, "volume 'penstock-token' is there"),
        ({"os": {"name": "windows"}}, "the pod is for 'windows'"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "the pod is for 'windows'"),
    ],
    ids=["container", "init-container", "volume", "token", "os", "selector"],
)
def test_a_pod_that_the_sidecar_does_not_fit_is_refused(more: dict[str, Any], said: str) -> None:
    """And its twin is not."""
    with pytest.raises(Denied, match=said):
        place(pod(**more))
    assert place(pod(volumes=[{"name": "data"}], os={"name": "linux"})).user == 1000


@pytest.mark.parametrize("path", ["/var/run/penstock/tls", "/var/run/penstock/tls/"])
def test_a_place_that_is_taken_is_refused(path: str) -> None:
    """Two volumes cannot be mounted there; another place can be named."""
    mounted = [container("web", 1000, volumeMounts=[{"name": "own", "mountPath": path}])]
    with pytest.raises(Denied, match=r"mounts volume 'own' at .*penstock.dev/path"):
        place(pod(containers=mounted))
    assert place(pod({"path": "/tls"}, containers=mounted)).containers == (0,)


RELOAD = {"reload": "signal:HUP:nginx"}


def test_a_reload_shares_processes() -> None:
    """Nothing else does."""
    assert place(pod(RELOAD)).is_sharing_processes
    assert not place(pod()).is_sharing_processes


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"hostPID": True}, "with hostPID it would see all of the node's"),
        ({"shareProcessNamespace": False}, "shareProcessNamespace is false"),
    ],
)
def test_a_reload_that_could_not_be_or_could_reach_others_is_refused(
    more: dict[str, Any], said: str
) -> None:
    """The same pod without a reload passes."""
    with pytest.raises(Denied, match=said):
        place(pod(RELOAD, **more))
    assert not place(pod(**more)).is_sharing_processes


def test_a_process_of_root_cannot_be_signalled() -> None:
    """By an agent that is another user."""
    root = [container("web", 0)]
    with pytest.raises(Denied, match="container 'web' runs as another user than the agent"):
        place(pod({**RELOAD, "user": "65532"}, containers=root))


def test_what_is_odd_and_works_is_warned_of() -> None:
    """The key may be seen by the node, or the broker not be found by its name."""
    warned = place(pod(hostNetwork=True, hostPID=True)).warnings
    assert len(warned) == 2
    assert "ClusterFirstWithHostNet" in warned[0]
    found = place(pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")).warnings
    assert found == ()


def test_a_pod_is_injected_when_the_sidecar_is_there() -> None:
    """The annotation alone, which anybody can copy into a template, says nothing."""
    env = [{"name": "PENSTOCK_AGENT_CONFIG", "value": "x"}]
    there = pod({"status": "injected"}, initContainers=[{"name": CONTAINER, "env": env}])
    assert is_injected(parse_pod(there, "shop"), PREFIX)
    assert not is_injected(parse_pod(pod({"status": "injected"}), "shop"), PREFIX)
    own = pod({"status": "injected"}, initContainers=[{"name": CONTAINER}])
    assert not is_injected(parse_pod(own, "shop"), PREFIX)
    silent = pod(initContainers=[{"name": CONTAINER, "env": env}])
    assert not is_injected(parse_pod(silent, "shop"), PREFIX)


def test_a_pod_that_a_kubelet_reports_is_known() -> None:
    """Nobody can change it."""
    document = pod()
    document["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
    assert parse_pod(document, "shop").is_mirror
