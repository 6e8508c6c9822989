"""What others keep and the broker takes up in place: certificate, policies, penstock.yaml.

The release has helm/examples/values/gitops.yaml as it stands: penstock.yaml, policies, the TLS pair
and the passphrase are objects that somebody else's tool owns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.kubernetes.applications import (
    PREFIX,
    address_of,
    application,
    exposed,
    look,
    opted_in,
    settings,
    wait_admitted,
    wait_served,
)
from tests.kubernetes.gitops import (
    CASES,
    CASES_TEXT,
    CONFIGURATION,
    EXAMPLE,
    LISTENERS,
    POLICIES,
    POLICY,
    allowing,
    config_map,
    configuration,
    new_pair,
    policies,
    secret,
    tls_secret,
)
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.release import CLAIM, NAME, NAMESPACE, Release
from tests.peers import authority
from tests.peers.authority import Signer
from tests.peers.process import wait_until

pytestmark = pytest.mark.timeout(600)

WHERE: Final = "gitops"
DIRECTORY: Final = f"""\
import ssl, urllib.request as r
context = ssl.create_default_context(cafile="/etc/penstock/tls/ca.crt")
url = "https://{NAME}.{NAMESPACE}.svc:8443/acme/directory"
print(r.urlopen(url, context=context, timeout=10).read().decode())
"""
"""An ACME client's first request."""

ADMISSION: Final = f"deployment/{NAME}-admission"

SERVED_SECONDS: Final = 180.0
TAKEN_SECONDS: Final = 180.0
"""Longest wait until a changed object is in force: 15 s of the kubelet's, and the broker's look."""


@pytest.fixture(scope="module")
def root() -> Signer:
    """The company's CA, which Penstock knows nothing of."""
    return authority.make_root("corporate CA")


@pytest.fixture(scope="module")
def kept(release: Release, root: Signer) -> Iterator[Release]:
    """The release with the example's values, and all that they name."""
    cluster = release.cluster
    release.wait()
    wanted = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    assert wanted["persistence"] == {"existingClaim": CLAIM}
    passphrase = cluster.get("secret", f"{NAME}-keys", namespace=NAMESPACE)["data"]
    # Without the label until the chart's own policy, which is for the same community, is gone.
    cluster.apply(
        secret("penstock-passphrase", passphrase),
        tls_secret(root, new_pair(root)),
        config_map(POLICIES, {"default.yaml": POLICY}),
        config_map(CASES, {"cases.yaml": CASES_TEXT}),
        config_map(CONFIGURATION, {"penstock.yaml": configuration(release, wanted)}),
    )
    release.upgrade(wanted)
    cases = config_map(CASES, {"cases.yaml": CASES_TEXT}, **{f"{PREFIX}/policies": "default"})
    cluster.apply(policies(POLICY), cases)
    yield release
    # Before the chart's own policy comes back; the broker's pod has what it mounted until it ends.
    cluster.kubectl("delete", f"configmap/{POLICIES}", f"configmap/{CASES}", "-n", NAMESPACE)
    release.upgrade()
    # Admission verifies the broker by the roots of before until the kubelet brings it the new ones.
    cluster.apply(opted_in(WHERE), exposed("web", WHERE))
    wait_admitted(cluster, "web", WHERE, seconds=SERVED_SECONDS)
    cluster.kubectl("delete", "namespace", WHERE, "--wait=false")
    names = (f"configmap/{CONFIGURATION}", "secret/penstock-passphrase", "secret/penstock-tls")
    cluster.kubectl("delete", *names, "-n", NAMESPACE)


def serials(release: Release, root: Signer) -> set[int]:
    """Return the serial numbers that the broker's listeners show, each verified by the CA.

    None while one of them is not reached: a Service leads to a new pod a moment late.
    """
    roots = root.certificate_pem.decode("ascii")
    found = set()
    for name, port in LISTENERS.items():
        address = address_of(release.cluster, name, NAMESPACE)
        try:
            shown = look(release.cluster, roots, address, f"{name}.{NAMESPACE}.svc", port=port)
        except ClusterFailed:
            return set()
        found.add(shown.serial_number)
    return found


def status(release: Release) -> dict[str, Any]:
    """Return what `penstock policy status` says; it fails while files are refused."""
    found: dict[str, Any] = json.loads(release.penstock("policy", "status", "--json"))
    return found


def refusal(release: Release) -> str:
    """Return what it says to a person while files are refused, else nothing."""
    try:
        release.penstock("policy", "status")
    except ClusterFailed as error:
        return str(error)
    return ""


def is_allowed(release: Release, name: str) -> bool:
    """Say whether an order for *name* would be let in."""
    return bool(json.loads(release.penstock("policy", "explain", name, "--json"))["allowed"])


def log(release: Release) -> str:
    """Return the end of the broker's log."""
    pod = f"{NAME}-0"
    return release.cluster.kubectl("logs", pod, "-n", NAMESPACE, "-c", "broker", "--tail=200")


# ------------------------------------------------------------------------------ its certificate


def test_broker_shows_the_pair_of_an_existing_secret(kept: Release, root: Signer) -> None:
    """On every listener; and pods, who get its roots, enrol and are served."""
    cluster = kept.cluster
    wait_until(lambda: len(serials(kept, root)) == 1, TAKEN_SECONDS, "all show one that verifies")
    pem = root.certificate_pem.decode()
    wait_until(lambda: pem in kept.trust(), SERVED_SECONDS, "pods have the company's root")
    cluster.apply(opted_in(WHERE), settings(WHERE), exposed("web", WHERE))
    wait_admitted(cluster, "web", WHERE, seconds=SERVED_SECONDS)
    cluster.apply(application("web", WHERE))
    wait_served(cluster, kept.trust(), "web", WHERE, seconds=SERVED_SECONDS)


def test_rotated_secret_is_taken_up_without_a_restart(kept: Release, root: Signer) -> None:
    """The next handshake of each listener has the new certificate; the pod is the same."""
    before = kept.life()
    pair = new_pair(root)
    assert serials(kept, root) != {pair.certificate.serial_number}
    kept.cluster.apply(tls_secret(root, pair))
    wait_until(
        lambda: serials(kept, root) == {pair.certificate.serial_number},
        TAKEN_SECONDS,
        "every listener shows the new certificate",
    )
    assert kept.life() == before


def test_pair_that_does_not_fit_is_told_and_the_next_one_is_taken(
    kept: Release, root: Signer
) -> None:
    """The one before goes on being shown, to clients who are served as ever."""
    before, shown = kept.life(), serials(kept, root)
    assert len(shown) == 1
    pair = new_pair(root)
    kept.cluster.apply(tls_secret(root, pair, key=new_pair(root)))
    wait_until(
        lambda: "[!] own-certificate" in kept.health("/readyz"), TAKEN_SECONDS, "/readyz tells it"
    )
    assert serials(kept, root) == shown
    assert "/etc/penstock/tls/tls.key cannot be used" in log(kept)
    kept.cluster.apply(tls_secret(root, pair))
    wait_until(
        lambda: serials(kept, root) == {pair.certificate.serial_number},
        TAKEN_SECONDS,
        "the pair that fits is shown",
    )
    assert "own-certificate" not in kept.health("/readyz")
    assert kept.life() == before


# -------------------------------------------------------------------------------- its policies


@pytest.fixture
def as_before(kept: Release) -> Iterator[Release]:
    """The release with the policies that all of these tests begin with, and end with."""
    yield kept
    kept.cluster.apply(policies(POLICY))
    wait_until(lambda: not refusal(kept), TAKEN_SECONDS, "the policies are in force again")
    wait_until(
        lambda: not is_allowed(kept, "www.corp.example"), TAKEN_SECONDS, "as they were at first"
    )


def test_changed_policy_is_in_force_without_a_restart(as_before: Release) -> None:
    """The decision is another, the digest too; the pod is the same."""
    release = as_before
    before, digest = release.life(), status(release)["in_force"]["sha256"]
    assert not is_allowed(release, "www.corp.example")
    release.cluster.apply(policies(allowing("**.corp.example")))
    wait_until(
        lambda: is_allowed(release, "www.corp.example"), TAKEN_SECONDS, "the name is allowed"
    )
    told = status(release)
    assert told["in_force"]["sha256"] != digest
    assert told["in_force"]["cases"] == 1
    assert told["policies"]["default"]["file"].endswith(f"{POLICIES}/default.yaml")
    assert release.life() == before


def test_policy_that_does_not_load_is_refused_when_it_is_applied(as_before: Release) -> None:
    """With its own ConfigMap, file and line; nothing is stored, and nothing changes."""
    release = as_before
    digest = status(release)["in_force"]["sha256"]
    broken = POLICY.replace("  wildcards: false", "  wildcard: false")
    with pytest.raises(ClusterFailed, match=rf"{POLICIES}/default\.yaml:7.*wildcards"):
        release.cluster.apply(policies(broken))
    stored = release.cluster.get("configmap", POLICIES, namespace=NAMESPACE)
    assert stored["data"]["default.yaml"] == POLICY
    assert status(release)["in_force"]["sha256"] == digest


def test_policy_whose_cases_fail_is_refused_with_the_case(as_before: Release) -> None:
    """It would load; another team's case in another ConfigMap says that it is wrong."""
    release = as_before
    with pytest.raises(ClusterFailed, match="the bank is not ours"):
        release.cluster.apply(policies(allowing("**.bank.example")))
    stored = release.cluster.get("configmap", POLICIES, namespace=NAMESPACE)
    assert stored["data"]["default.yaml"] == POLICY
    assert not is_allowed(release, "www.bank.example")


@pytest.fixture
def without_admission(as_before: Release) -> Iterator[Release]:
    """The release while nobody looks at what is applied."""
    cluster = as_before.cluster
    cluster.kubectl("scale", ADMISSION, "--replicas=0", "-n", NAMESPACE)
    cluster.kubectl(
        *("wait", "--for=delete", "pod", "-n", NAMESPACE, "--timeout=300s"),
        *("-l", "app.kubernetes.io/component=admission"),
    )
    yield as_before
    cluster.kubectl("scale", ADMISSION, "--replicas=2", "-n", NAMESPACE)
    as_before.wait()


def test_policies_swapped_past_admission_change_nothing(without_admission: Release) -> None:
    """The broker finds by itself that a case fails, says so everywhere, and keeps the last good
    set, also when it starts anew."""
    release = without_admission
    digest = status(release)["in_force"]["sha256"]
    release.cluster.apply(policies(allowing("**.bank.example")))
    wait_until(
        lambda: "the bank is not ours" in refusal(release), TAKEN_SECONDS, "policy status tells it"
    )
    _assert_told(release, digest)
    assert "\npenstock_policy_last_good 0.0" in release.health("/metrics")
    assert "policies refused" in log(release)
    before = release.life()
    release.cluster.kubectl("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    release.cluster.kubectl(
        "rollout", "status", f"statefulset/{NAME}", "-n", NAMESPACE, "--timeout=300s"
    )
    assert release.life() != before
    _assert_told(release, digest)
    assert "\npenstock_policy_last_good 1.0" in release.health("/metrics")


def _assert_told(release: Release, digest: str) -> None:
    """See that the set called *digest* is in force, the broker ready, and the refusal told."""
    ready, metrics = release.health("/readyz"), release.health("/metrics")
    assert "[!] policies files are refused" in ready
    assert "the bank is not ours" in ready
    assert "\npenstock_policy_refused 1.0" in metrics
    assert f'penstock_policy_info{{sha256="{digest}"}} 1.0' in metrics
    assert not is_allowed(release, "www.bank.example")
    assert "the bank is not ours" in refusal(release)


# --------------------------------------------------------------------------------- penstock.yaml


@pytest.fixture
def written(kept: Release) -> Iterator[str]:
    """What penstock.yaml says at first, and again in the end."""
    found = kept.cluster.get("configmap", CONFIGURATION, namespace=NAMESPACE)
    text = str(found["data"]["penstock.yaml"])
    yield text
    write(kept, text)
    wait_until(lambda: kept.is_serving_by(text), TAKEN_SECONDS, "it is in force again")


def write(release: Release, text: str) -> None:
    """Have penstock.yaml say something else, as its owner's tool would."""
    release.cluster.apply(config_map(CONFIGURATION, {"penstock.yaml": text}))


def wants_binding(release: Release) -> bool:
    """Say whether accounts have to be bound, by the directory that ACME clients are shown."""
    asked = ("exec", f"{NAME}-0", "-n", NAMESPACE, "-c", "broker", "--", "/opt/penstock/bin/python")
    told = release.cluster.kubectl(*asked, "-c", DIRECTORY)
    return bool(json.loads(told)["meta"].get("externalAccountRequired", False))


def test_changed_configuration_is_in_force_without_a_restart(kept: Release, written: str) -> None:
    """Clients are shown what it says; the pod is the same, and what was served is served on."""
    before = kept.life()
    assert not wants_binding(kept)
    said = yaml.safe_load(written)
    said["communities"] = {"default": {"external_account_required": True}}
    changed = yaml.safe_dump(said)
    write(kept, changed)
    wait_until(lambda: kept.is_serving_by(changed), TAKEN_SECONDS, "it is in force")
    assert wants_binding(kept)
    assert kept.life() == before


def test_broken_configuration_is_told_and_changes_nothing(kept: Release, written: str) -> None:
    """The one before serves on, also in a pod that begins anew; who asks is told what is wrong."""
    before = kept.life()
    write(kept, f"{written}\nlimitz: {{}}\n")
    wait_until(
        lambda: "[!] configuration" in kept.health("/readyz"), TAKEN_SECONDS, "/readyz tells it"
    )
    _assert_configuration_is(kept, written)
    assert "\npenstock_config_last_good 0.0" in kept.health("/metrics")
    assert "configuration refused" in log(kept)
    assert kept.life() == before
    kept.cluster.kubectl("delete", "pod", f"{NAME}-0", "-n", NAMESPACE)
    kept.wait()
    assert kept.life() != before
    _assert_configuration_is(kept, written)
    assert "\npenstock_config_last_good 1.0" in kept.health("/metrics")


def _assert_configuration_is(release: Release, text: str) -> None:
    """See that *text* is in force, the broker ready, and the refusal of another told."""
    assert "limitz" in release.health("/readyz")
    assert "\npenstock_config_refused 1.0" in release.health("/metrics")
    assert release.is_serving_by(text)
    found = json.loads(release.penstock("status", "--json"))["configuration"]
    assert any("limitz" in one for one in found["refused"]["faults"])
    assert not wants_binding(release)
