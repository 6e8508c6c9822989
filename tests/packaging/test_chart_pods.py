"""Every pod that the chart makes: restricted, and with no right that it does not need."""

from typing import Any

import pytest

from tests.packaging.charts import VALUE_SETS, containers, pod_specs, rendered
from tests.peers.helm import Document, render

pytestmark = pytest.mark.peers

VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that are mounted; all of them are among those of restricted pods."""

API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def faults_of(name: str, spec: dict[str, Any]) -> list[str]:
    """Return what of a pod is not restricted, by the Pod Security Standards and our own rules."""
    found = []
    pod = spec.get("securityContext", {})
    if spec.get("automountServiceAccountToken") is not False:
        found.append(f"{name}: the token of its service account is mounted by itself")
    for word in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(word):
            found.append(f"{name}: {word}")
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            found.append(f"{name}: volume {volume['name']} is of kind {kinds}")
    for one in containers(spec):
        own = {**pod, **one.get("securityContext", {})}
        wanted = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        found += [
            f"{name} {one['name']}: {key} is {own.get(key)}"
            for key, value in wanted.items()
            if own.get(key) != value
        ]
        if not own.get("runAsUser"):
            found.append(f"{name} {one['name']}: runs as root, or as whom the image says")
        if "memory" not in one.get("resources", {}).get("limits", {}):
            found.append(f"{name} {one['name']}: takes as much memory as it likes")
        found += [
            f"{name} {one['name']}: {mount['mountPath']} by subPath is never replaced"
            for mount in one.get("volumeMounts", ())
            if "subPath" in mount
        ]
    return found


@pytest.mark.parametrize("values", VALUE_SETS)
def test_pods_are_restricted(values: str) -> None:
    """All of them, those of `helm test` and of init containers included."""
    pods = list(pod_specs(rendered(values).documents))
    assert len(pods) >= 1
    assert [fault for name, spec in pods for fault in faults_of(name, spec)] == []


def test_hook_is_among_them() -> None:
    """The twin of a check that would pass over it."""
    names = [name for name, _ in pod_specs(rendered("default").documents)]
    assert names == ["Deployment/penstock-admission", "StatefulSet/penstock", "Pod/penstock-test"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"automountServiceAccountToken": True}, "mounted by itself"),
        ({"securityContext": {}}, "runAsNonRoot"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_pod_that_is_not_restricted_is_seen(change: dict[str, Any], what: str) -> None:
    """One change at a time."""
    (_, spec), *_ = pod_specs(rendered("broker-only").documents)
    assert any(what in fault for fault in faults_of("pod", {**spec, **change}))


def tokens(spec: dict[str, Any]) -> dict[str, str]:
    """Return the audience of each token that is mounted in a pod, by where it lies."""
    sources = {
        volume["name"]: source["serviceAccountToken"]
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    return {
        f"{mount['mountPath']}/{sources[mount['name']]['path']}": sources[mount["name"]].get(
            "audience", "the API server"
        )
        for one in containers(spec)
        for mount in one["volumeMounts"]
        if mount["name"] in sources
    }


def test_each_token_is_for_one_audience() -> None:
    """A token that somebody takes away opens one door."""
    pods = dict(pod_specs(rendered("vault").documents))
    assert tokens(pods["StatefulSet/penstock"]) == {
        f"{API_TOKEN}/token": "the API server",
        "/var/run/secrets/penstock/vault-token": "vault",
    }
    assert tokens(pods["Deployment/penstock-admission"]) == {
        f"{API_TOKEN}/token": "the API server",
        "/var/run/secrets/penstock-operators/token": "penstock-operators",
        "/var/run/secrets/penstock/token": "penstock",
    }
    assert tokens(pods["Pod/penstock-test"]) == {"/var/run/secrets/penstock/token": "penstock"}


def rules(kind: str, name: str, values: str = "default") -> list[tuple[str, ...]]:
    """Return what a role allows, a line for each verb and resource."""
    found = []
    for rule in rendered(values).one(kind, name)["rules"]:
        for what in rule.get("resources", rule.get("nonResourceURLs", ())):
            names = ",".join(rule.get("resourceNames", ["*"]))
            found.append((what, names, ",".join(rule["verbs"])))
    return sorted(found)


def test_broker_may_ask_and_write_one_thing() -> None:
    """Its whole rights, spelt out."""
    assert rules("ClusterRole", "penstock-penstock") == [
        ("/.well-known/openid-configuration", "*", "get"),
        ("/openid/v1/jwks", "*", "get"),
        ("pods", "*", "get"),
        ("services", "*", "list"),
        ("tokenreviews", "*", "create"),
    ]
    assert rules("Role", "penstock-trust") == [("configmaps", "penstock-trust", "get,patch")]


def test_broker_that_reads_keys_asks_about_no_token() -> None:
    """What it doesn't use is not its right."""
    made = render(values={"cluster": {"tokens": "keys"}})
    role = made.one("ClusterRole", "penstock-penstock")
    asked = [what for rule in role["rules"] for what in rule.get("resources", ())]
    assert sorted(asked) == ["pods", "services"]


def test_admission_may_change_its_own_webhooks_and_one_configmap() -> None:
    """Its whole rights, spelt out."""
    own = "penstock-penstock-admission"
    writing = "get,list,watch,update,patch"
    assert rules("ClusterRole", own) == [
        ("configmaps", "*", "create"),
        ("configmaps", "penstock-trust", writing),
        ("mutatingwebhookconfigurations", own, writing),
        ("namespaces", "*", "get,list,watch"),
        ("services", "*", "get,list,watch"),
        ("validatingwebhookconfigurations", own, writing),
    ]
    assert rules("Role", "penstock-admission") == [("configmaps", "*", "get,list,watch")]


def test_nobody_may_read_secrets() -> None:
    """In no set of values."""
    for values in VALUE_SETS:
        for one in rendered(values).documents:
            for rule in one.get("rules") or () if "Role" in one["kind"] else ():
                assert "secrets" not in rule.get("resources", ())
                assert "*" not in (*rule.get("resources", ()), *rule["verbs"])


def test_broker_without_pods_has_no_rights_beyond_its_namespace() -> None:
    """Where no cluster vouches for anybody, there is nothing to ask it."""
    made = rendered("broker-only")
    assert made.all("ClusterRole") == []
    assert made.all("MutatingWebhookConfiguration") == []


def webhook(kind: str) -> Document:
    """Return the one webhook of a configuration."""
    (found,) = rendered("default").one(kind, "penstock-penstock-admission")["webhooks"]
    made: Document = found
    return made


def test_webhook_for_pods_fails_closed_for_those_who_opted_in_alone() -> None:
    """Never for Penstock's own namespace, nor for what a cluster cannot do without."""
    made = webhook("MutatingWebhookConfiguration")
    assert (made["failurePolicy"], made["sideEffects"]) == ("Fail", "NoneOnDryRun")
    opted, excluded = made["namespaceSelector"]["matchExpressions"]
    assert opted == {"key": "penstock.dev/inject", "operator": "In", "values": ["enabled"]}
    assert (excluded["key"], excluded["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    assert set(excluded["values"]) == {"penstock", "kube-system", "kube-public", "kube-node-lease"}
    assert "caBundle" not in made["clientConfig"]


def test_webhook_for_policies_never_stands_in_the_way() -> None:
    """It looks at ConfigMaps that say what they are, and lets them pass when it is away."""
    made = webhook("ValidatingWebhookConfiguration")
    assert made["failurePolicy"] == "Ignore"
    labels = made["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": "penstock"}
    (label,) = made["objectSelector"]["matchExpressions"]
    assert label == {"key": "penstock.dev/policies", "operator": "Exists"}


def test_policies_of_the_chart_are_looked_at_when_they_are_applied() -> None:
    """They have the label."""
    made = rendered("default").one("ConfigMap", "penstock-policies")
    assert made["metadata"]["labels"]["penstock.dev/policies"] == "all"


def test_prefix_is_said_once() -> None:
    """Where another one is chosen, ours is nowhere but in the files' own `apiVersion`."""
    made = render(values={"admission": {"annotationPrefix": "certs.corp.example"}})
    left = [
        line.strip()
        for line in made.text.splitlines()
        if "penstock.dev" in line and "penstock.dev/v1" not in line
    ]
    assert left == []


def test_upgrade_leaves_what_others_write() -> None:
    """The roots, which the broker writes: a value here would be put in their place."""
    assert "data" not in rendered("default").one("ConfigMap", "penstock-trust")


def test_probes_tell_starting_ready_and_broken_apart() -> None:
    """Readiness alone looks at what a restart would not mend."""
    spec = rendered("default").one("StatefulSet", "penstock")["spec"]["template"]["spec"]
    (broker,) = spec["containers"]
    paths = {
        name: broker[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    startup = broker["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 600
    assert spec["terminationGracePeriodSeconds"] > 15


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 8),
        ({"probes": {"readinessPeriodSeconds": 1}}, 4),
        # The end comes before anybody could have noticed; clients' 15 s stay theirs.
        ({"probes": {"readinessPeriodSeconds": 60}}, 25),
        ({"terminationGracePeriodSeconds": 20}, 0),
    ],
    ids=["default", "sooner", "too late", "no time"],
)
def test_broker_serves_on_until_it_has_been_found_not_ready(
    values: dict[str, Any], seconds: int
) -> None:
    """Who was led to a pod whose address is gone would get no answer, not even a refusal."""
    spec = render(values=values).one("StatefulSet", "penstock")["spec"]["template"]["spec"]
    (broker,) = spec["containers"]
    assert f"--linger={seconds}" in broker["args"]
    readiness = broker["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert seconds > noticed or seconds == spec["terminationGracePeriodSeconds"] - 20


def test_rollback_replaces_a_pod_that_never_became_ready() -> None:
    """With OrderedReady it would wait for that pod."""
    spec = rendered("default").one("StatefulSet", "penstock")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
