"""Penstock as the ACME issuer of the real cert-manager, as docs/kubernetes.md has it.

The names are proven by http-01 in the cluster: cert-manager makes a pod, a Service and an Ingress,
it looks at them itself, and then the broker does.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tests.kubernetes import cert_manager, ingress
from tests.kubernetes.applications import (
    address_of,
    exposed,
    look,
    pod_template,
    settings,
    wait_served,
)
from tests.kubernetes.cert_manager import CertManager
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import REPOSITORY
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import namespace
from tests.kubernetes.release import NAMESPACE, Release
from tests.kubernetes.report import Report
from tests.kubernetes.slow_ca import SlowCa
from tests.peers import authority

pytestmark = pytest.mark.timeout(900)

PAGE: Final = REPOSITORY / "docs" / "kubernetes.md"
BLOCK: Final = re.compile(r"<!-- cert-manager: (?P<kind>\w+) -->\n```yaml\n(?P<text>.*?)```", re.S)
WHERE: Final = "front"

ISSUE_SECONDS: Final = 300.0
"""Longest wait where nobody is slow; 20 s on an idle machine, most of it cert-manager's looks."""

SLOW_SECONDS: Final = 300.0
"""Longest wait for a CA that takes a minute."""

MINUTE: Final = 60.0
"""What a CA may take to look at a name, in seconds: it takes longer here."""

SLOW_NAMES: Final = tuple(f"shop{number}.slow.corp.example" for number in range(8))
"""So many that the longest of the CA's random times is above a minute (``slow_ca``)."""

HEADING: Final = "cert-manager 1.21.2 with Penstock as its issuer"

SLOW_PROFILE: Final = {
    "description": "TLS servers, from a CA that takes a minute to look at names",
    "cap": "30d",
    "usages": ["server-auth"],
    "upstreams": [{"upstream": "slow"}],
}


def of_page() -> dict[str, Any]:
    """Return the blocks of the page that are applied, by what each is."""
    found = BLOCK.finditer(PAGE.read_text("utf-8"))
    return {block["kind"]: yaml.safe_load(block["text"]) for block in found}


@pytest.fixture(scope="module")
def slow(cluster: Cluster) -> SlowCa:
    """A public CA that takes its time."""
    ca = SlowCa(cluster)
    ca.start()
    return ca


@pytest.fixture(scope="module")
def issuer(release: Release, slow: SlowCa) -> Iterator[Release]:
    """The broker with the values of the page, a policy for the names, and the slow CA."""
    metadata = {"name": "slow-ca", "namespace": NAMESPACE}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": slow.files()}
    release.cluster.apply(files)
    wanted = of_page()["values"]
    wanted["config"]["upstreams"]["slow"] = slow.upstream()
    policy = of_page()["policy"]
    policy["profiles"]["slow"] = SLOW_PROFILE
    wanted["files"] = {"slow": "slow-ca"}
    wanted["policies"] = {"files": {"default.yaml": yaml.safe_dump(policy)}}
    release.upgrade(wanted)
    release.penstock("upstream", "register", "slow", "--agree-to-terms")
    yield release
    release.upgrade()


@pytest.fixture(scope="module")
def manager(issuer: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertManager]:
    """cert-manager, an ingress controller, and two issuers: the page's, and one for the slow CA."""
    cluster = issuer.cluster
    for name in ("shop.corp.example", *SLOW_NAMES, "again.corp.example"):
        cluster.add_host(name)
    ingress.start(cluster)
    controllers = CertManager(cluster)
    controllers.start(tmp_path_factory.mktemp("cert-manager"))
    cluster.apply(namespace(WHERE))
    written = of_page()["issuer"]
    for name, profile in (("penstock", "web"), ("penstock-slow", "slow")):
        make_issuer(issuer, written, name, profile)
    yield controllers
    # First what cert-manager has to let go of, then cert-manager.
    cluster.kubectl("delete", "namespace", WHERE)
    cluster.kubectl("delete", "namespace", cert_manager.NAMESPACE, "--wait=false")


def make_issuer(release: Release, written: dict[str, Any], name: str, profile: str) -> None:
    """Make the issuer of the page under a name, with a binding key and an account of its own."""
    minted = json.loads(release.penstock("eab", "mint", "--label", name, "--json"))
    made = json.loads(json.dumps(written))
    acme = made["spec"]["acme"]
    binding, account = acme["externalAccountBinding"], acme["privateKeySecretRef"]
    made["metadata"]["name"] = name
    acme["caBundle"] = base64.b64encode(release.trust().encode()).decode()
    binding["keyID"] = minted["key_id"]
    if profile != acme["profile"]:
        acme["profile"] = profile
        binding["keySecretRef"]["name"] += f"-{profile}"
        account["name"] += f"-{profile}"
    reference = binding["keySecretRef"]
    release.cluster.apply(secret(reference["name"], {reference["key"]: minted["mac_key"]}), made)
    wait_until_issuer_is(release.cluster, name, lambda one: cert_manager.is_ready(one))


def secret(name: str, content: dict[str, str]) -> dict[str, Any]:
    """Return a Secret in cert-manager's namespace."""
    where = {"name": name, "namespace": cert_manager.NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": where, "stringData": content}


def wait_until_issuer_is(cluster: Cluster, name: str, has_come: Callable[[Any], bool]) -> Any:
    """Wait until an issuer has come that far; return it."""
    end = time.monotonic() + ISSUE_SECONDS
    while True:
        found = cluster.get("clusterissuer", name)
        if has_come(found):
            return found
        if time.monotonic() > end:
            raise ClusterFailed(f"issuer {name}: {json.dumps(found.get('status'), indent=1)}")
        time.sleep(0.5)


def certificate(name: str, *names: str, by: str = "penstock") -> dict[str, Any]:
    """Return the Certificate of the page under another name, for other names."""
    made: dict[str, Any] = of_page()["certificate"]
    made["metadata"]["name"] = name
    made["spec"] |= {"secretName": f"{name}-tls", "dnsNames": list(names)}
    made["spec"]["issuerRef"]["name"] = by
    return made


def verify(chain: str, roots: str, name: str) -> None:
    """Verify a chain for a name, as a TLS client would."""
    leaf, *rest = x509.load_pem_x509_certificates(chain.encode())
    store = Store(x509.load_pem_x509_certificates(roots.encode()))
    builder = PolicyBuilder().store(store).time(authority.real_now())
    builder.build_server_verifier(x509.DNSName(name)).verify(leaf, rest)


def made_on_the_way(cluster: Cluster, name: str) -> tuple[int, int]:
    """Return how many requests and orders cert-manager made for a Certificate."""
    counts = []
    for kind in ("certificaterequests", "orders"):
        found = cluster.get(kind, namespace=WHERE)["items"]
        key = "cert-manager.io/certificate-name"
        counts.append(sum(one["metadata"]["annotations"].get(key) == name for one in found))
    return counts[0], counts[1]


def orders_for(release: Release, name: str) -> list[str]:
    """Return how the broker's orders for a name ended, of all that it ever had."""
    told = json.loads(release.penstock("order", "list", "--json"))
    return [one["status"] for one in told if name in one["names"]]


def served_by_nginx(secret_name: str) -> dict[str, Any]:
    """Return an nginx that serves what lies in a Secret, as people did before there were agents."""
    template = pod_template("shop", {})
    spec = template["spec"]
    mount = {"name": "tls", "mountPath": "/var/run/penstock/tls"}
    spec["containers"][0]["volumeMounts"].append(mount)
    spec["volumes"].append({"name": "tls", "secret": {"secretName": secret_name}})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": WHERE},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": template},
    }


def test_certificate_of_the_page_is_issued_and_served(
    manager: CertManager, issuer: Release, report: Report
) -> None:
    """Bound account, http-01 by a pod and an Ingress, one order; nginx serves what came of it."""
    cluster = issuer.cluster
    begun = time.monotonic()
    cluster.apply(of_page()["certificate"])
    manager.wait_certificate("shop", WHERE, seconds=ISSUE_SECONDS)
    took = time.monotonic() - begun
    leaf, chain = manager.secret("shop-tls", WHERE)
    verify(chain, issuer.trust(), "shop.corp.example")
    assert made_on_the_way(cluster, "shop") == (1, 1)
    cluster.apply(settings(WHERE), exposed("shop", WHERE), served_by_nginx("shop-tls"))
    cluster.kubectl("rollout", "status", "deployment/shop", "-n", WHERE, "--timeout=300s")
    name = "shop.corp.example"
    wait_served(cluster, issuer.trust(), "shop", WHERE, seconds=ISSUE_SECONDS, name=name)
    served = look(cluster, issuer.trust(), address_of(cluster, "shop", WHERE), name)
    assert served.serial_number == leaf.serial_number
    report.figure(HEADING, "Certificate applied until its Secret is there", f"{took:.1f} s")


def test_renewal_brings_a_new_certificate(manager: CertManager, issuer: Release) -> None:
    """cert-manager orders anew when renewBefore says so: another key, one order more."""
    cluster = issuer.cluster
    before, _ = manager.secret("shop-tls", WHERE)
    whole = before.not_valid_after_utc - before.not_valid_before_utc
    # Due 90 s after the beginning, which lies a minute before the issue.
    due = whole - timedelta(seconds=90)
    change = {"spec": {"renewBefore": f"{int(due.total_seconds())}s"}}
    patched = ("patch", "certificate", "shop", "-n", WHERE, "--type=merge", "-p")
    cluster.kubectl(*patched, json.dumps(change))
    try:
        manager.wait_certificate("shop", WHERE, seconds=ISSUE_SECONDS, revision=2)
    finally:
        cluster.kubectl(*patched, '{"spec": {"renewBefore": null}}')
    after, chain = manager.secret("shop-tls", WHERE)
    verify(chain, issuer.trust(), "shop.corp.example")
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    # cert-manager forgets the requests before; the broker has both orders.
    assert made_on_the_way(cluster, "shop") == (1, 1)
    assert orders_for(issuer, "shop.corp.example") == ["valid", "valid"]


def test_ca_that_takes_a_minute_issues_one(
    manager: CertManager, issuer: Release, slow: SlowCa, report: Report
) -> None:
    """The order stays processing, cert-manager asks again and again, and orders once."""
    begun, issued, looks = time.monotonic(), slow.issued(), len(slow.slept())
    issuer.cluster.apply(certificate("slow", *SLOW_NAMES, by="penstock-slow"))
    made = manager.wait_certificate("slow", WHERE, seconds=SLOW_SECONDS)
    took = time.monotonic() - begun
    longest = max(slow.slept()[looks:])
    _, chain = manager.secret("slow-tls", WHERE)
    verify(chain, slow.files()["root.pem"], SLOW_NAMES[0])
    assert took > longest >= MINUTE
    assert slow.issued() - issued == 1
    assert made_on_the_way(issuer.cluster, "slow") == (1, 1)
    assert "failedIssuanceAttempts" not in made["status"]
    report.figure(HEADING, "CA's longest look at a name", f"{longest:.0f} s")
    report.figure(HEADING, "Certificate applied until ready, with that CA", f"{took:.1f} s")


def test_both_restarted_in_the_middle_get_one_certificate(
    manager: CertManager, issuer: Release, slow: SlowCa
) -> None:
    """cert-manager is killed while it waits, then the broker is; the same order ends valid."""
    cluster = issuer.cluster
    issued, looks = slow.issued(), len(slow.slept())
    cluster.apply(certificate("again", "again.corp.example", by="penstock-slow"))
    wait_looked_at(manager, slow, looks)
    manager.kill()
    cluster.kubectl("delete", "pod", f"{NAMESPACE}-0", "-n", NAMESPACE, "--wait=true")
    issuer.wait()
    manager.wait()
    made = manager.wait_certificate("again", WHERE, seconds=SLOW_SECONDS)
    assert slow.issued() - issued == 1
    assert made_on_the_way(cluster, "again") == (1, 1)
    assert "failedIssuanceAttempts" not in made["status"]


def wait_looked_at(manager: CertManager, slow: SlowCa, looks: int) -> None:
    """Wait until the CA began to look at names once more."""
    end = time.monotonic() + ISSUE_SECONDS
    while len(slow.slept()) == looks:
        assert time.monotonic() < end, manager.story(WHERE)
        time.sleep(0.2)


def test_issuer_without_a_binding_is_refused(manager: CertManager, issuer: Release) -> None:
    """The negative twin: without the key nobody has an account, and the issuer says why."""
    made: dict[str, Any] = of_page()["issuer"]
    made["metadata"]["name"] = "stranger"
    acme = made["spec"]["acme"]
    del acme["externalAccountBinding"]
    acme["privateKeySecretRef"]["name"] = "stranger-account"
    acme["caBundle"] = base64.b64encode(issuer.trust().encode()).decode()
    issuer.cluster.apply(made)
    found = wait_until_issuer_is(issuer.cluster, "stranger", has_said_no)
    assert "externalAccountRequired" in json.dumps(found["status"])
    issuer.cluster.kubectl("delete", "clusterissuer", "stranger")


def has_said_no(found: Any) -> bool:
    """Say whether an issuer tells that it is not ready."""
    conditions = found.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "False" for one in conditions)


def test_name_that_policy_does_not_allow_gets_nothing(
    manager: CertManager, issuer: Release
) -> None:
    """The negative twin: the request fails at once with the broker's reason, and is not retried."""
    cluster = issuer.cluster
    made = certificate("none", "none.elsewhere.example")
    cluster.apply(made)
    end = time.monotonic() + ISSUE_SECONDS
    while "Failed" not in (told := failures(cluster, "none")):
        assert time.monotonic() < end, manager.story(WHERE)
        time.sleep(0.5)
    assert "none.elsewhere.example" in told
    with pytest.raises(ClusterFailed, match="not found"):
        cluster.get("secret", "none-tls", namespace=WHERE)
    cluster.kubectl("delete", "certificate", "none", "-n", WHERE)


def failures(cluster: Cluster, name: str) -> str:
    """Return what conditions of a Certificate and of its requests say."""
    found = cluster.get("certificaterequests", namespace=WHERE)["items"]
    key = "cert-manager.io/certificate-name"
    ours = [one for one in found if one["metadata"]["annotations"].get(key) == name]
    return json.dumps([one.get("status", {}).get("conditions", ()) for one in ours])
