"""The chart as it is rendered: reviewed as golden files, and as Kubernetes would look at it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.charts import EXAMPLES, VALUE_SETS, rendered
from tests.peers import helm
from tests.peers.helm import CHART, Document, Rendered, render, schema_faults, score

pytestmark = pytest.mark.peers

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "helm"

VERSIONS = ("1.30", "1.34", "1.37")
"""The oldest Kubernetes that the chart takes, the one that it is tried on, and the newest known."""

NOT_KUBERNETES = ("monitoring.coreos.com/", "cert-manager.io/")
"""APIs of others, whose schemas come with them."""

PUT_UP_WITH = {
    "container-resources: CPU limit": "a limit would slow a broker down that others leave room for",
    "container-ephemeral-storage": "nothing is written there: root file systems are read-only",
    "container-image-pull-policy": "images have versions; a digest holds whatever the policy is",
    "penstock-test: pod-probes": "ends by itself, nobody waits for it to be ready",
}
"""What kube-score finds critical and we do not, with the reason."""


def kubernetes_own(made: Rendered) -> list[Document]:
    """Return the objects that Kubernetes itself has schemas for."""
    return [one for one in made.documents if not one["apiVersion"].startswith(NOT_KUBERNETES)]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_chart_is_rendered_as_reviewed(name: str, update_golden: bool) -> None:
    """A change of it is seen where it would be applied."""
    path = GOLDEN / f"{name}.yaml"
    text = rendered(name).text
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_is_one_that_kubernetes_takes(name: str, version: str) -> None:
    """By the strict schema of that version, in which no field is unknown."""
    assert schema_faults(kubernetes_own(rendered(name)), version) == []


def test_field_that_is_not_there_would_be_seen() -> None:
    """The twin: one letter is enough."""
    (found,) = rendered("default").all("StatefulSet")
    wrong: Document = {**found, "spec": {**found["spec"], "replica": 1}}
    ((name, fault),) = schema_faults([wrong], VERSIONS[1])
    assert name == "StatefulSet/penstock"
    assert "replica" in fault


def test_kubernetes_that_is_too_old_is_refused() -> None:
    """Its pods would start without waiting for their certificate."""
    with pytest.raises(helm.RenderFailed, match=r"incompatible with Kubernetes v1\.29\.9"):
        render(version="1.29.9")


@pytest.mark.parametrize("name", VALUE_SETS)
def test_linter_finds_nothing_that_has_no_reason(name: str) -> None:
    """Nor any reason that nothing is found for; see the table."""
    found = score(rendered(name).text)
    assert [one for one in found if not any(known in one for known in PUT_UP_WITH)] == []


def test_every_exception_of_the_linter_is_needed() -> None:
    """A reason does not outlive its cause."""
    found = score(rendered("default").text)
    assert [one for one in PUT_UP_WITH if not any(one in each for each in found)] == []


@pytest.mark.parametrize("name", [one for one in VALUE_SETS if one != "default"])
def test_helm_lints_the_examples(name: str) -> None:
    """And with them the schema of the values."""
    assert "0 chart(s) failed" in helm.lint(EXAMPLES / "values" / f"{name}.yaml")


def test_helm_lints_the_chart() -> None:
    """With nothing said."""
    assert "0 chart(s) failed" in helm.lint()


def application(tmp_path: Path) -> Rendered:
    """Return the example of a chart that writes the sidecar itself, with the library fetched."""
    for name in ("examples", "penstock"):
        shutil.copytree(CHART.parent / name, tmp_path / name)
    chart = tmp_path / "examples" / "application"
    helm.helm("dependency", "build", str(chart), "--skip-refresh")
    return render(chart=chart, release="shop", namespace="shop")


def test_chart_that_writes_the_sidecar_itself(tmp_path: Path, update_golden: bool) -> None:
    """It takes the library by its path, and gets what annotations would have given it."""
    made = application(tmp_path)
    path = GOLDEN / "application.yaml"
    if update_golden:
        path.write_text(made.text, "utf-8")
    assert path.read_text("utf-8") == made.text
    for version in VERSIONS:
        assert schema_faults(made.documents, version) == []


def test_example_for_nodes_is_one_that_kubernetes_takes() -> None:
    """All of its objects, in each version."""
    made = Rendered((EXAMPLES / "node-agent.yaml").read_text("utf-8"))
    assert {one["kind"] for one in made.documents} >= {"Namespace", "DaemonSet", "Service"}
    for version in VERSIONS:
        assert schema_faults(made.documents, version) == []


NOTES = """\
apiVersion: v1
kind: ConfigMap
metadata: { name: notes }
data:
  notes: |
    {{- tpl (.Files.Get "notes.txt") . | nindent 4 }}
"""
"""A template that shows what Helm prints after an installation: it renders notes for no file."""


def notes(tmp_path: Path, values: dict[str, Any]) -> str:
    """Return what Helm prints after the chart is installed with *values*."""
    chart = tmp_path / "penstock"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates" / "notes.yaml").write_text(NOTES)
    text: str = render(chart=chart, values=values).one("ConfigMap", "notes")["data"]["notes"]
    return text


def test_notes_say_what_to_do_next(tmp_path: Path, update_golden: bool) -> None:
    """From the installation to a pod that serves a certificate."""
    text = notes(tmp_path, {})
    path = GOLDEN / "notes.txt"
    if update_golden:
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


def test_notes_warn_of_a_store_that_goes_with_its_pod(tmp_path: Path) -> None:
    """And say nothing of sidecars where there are none."""
    without = {"enabled": False}
    text = notes(tmp_path, {"persistence": without, "admission": without, "cluster": without})
    assert "WARNING: persistence.enabled is false" in text
    assert "inject" not in text


def pod_template(made: Rendered) -> dict[str, Any]:
    """Return what decides whether the broker's pod is made anew."""
    found: dict[str, Any] = made.one("StatefulSet", "penstock")["spec"]["template"]
    return found


def test_what_is_read_again_in_place_makes_no_new_pod() -> None:
    """The configuration and policies; the twin, another built-in CA to be made, does."""
    before = pod_template(render())
    people = {"jane": {"users": ["jane"], "roles": {"*": ["viewer"]}}}
    policy = {"files": {"more.yaml": "apiVersion: penstock.dev/v1\nkind: Policy\n"}}
    assert pod_template(render(values={"config": {"operators": {"people": people}}})) == before
    assert pod_template(render(values={"policies": policy})) == before
    assert pod_template(render(values={"config": {"log": {"level": "debug"}}})) == before
    assert pod_template(render(values={"existingConfigMap": "other"})) != before
    assert pod_template(render(values={"prepare": {"cas": {"nodes": ["x.internal"]}}})) != before
    (broker,) = before["spec"]["containers"]
    assert "--follow" in broker["args"]


def test_names_stay_within_bounds_whatever_the_release_is_called() -> None:
    """63 characters, as labels and hosts have them."""
    made = render(release="a" * 53, namespace="n" * 63)
    names = [one["metadata"]["name"] for one in made.documents if "ole" not in one["kind"]]
    names = [one for one in names if not one.startswith("n" * 63)]
    assert max(map(len, names)) <= 63
    ports = [port["name"] for one in made.all("Service") for port in one["spec"]["ports"]]
    assert max(map(len, ports)) <= 15


def test_two_releases_share_no_object() -> None:
    """Neither in two namespaces, where some objects belong to none, nor in one."""

    def keys(made: Rendered) -> set[tuple[str, str, str]]:
        return {
            (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"])
            for one in made.documents
        }

    first = keys(render())
    assert not first & keys(render(namespace="other"))
    assert not first & keys(render(release="second"))


def test_passphrase_is_no_part_of_what_is_rendered_without_a_cluster() -> None:
    """It would be another at each rendering; the pod waits for the Secret by its name instead."""
    made = rendered("default")
    assert made.all("Secret") == []
    assert "create secret generic penstock-keys" in made.text
    volumes = made.one("StatefulSet", "penstock")["spec"]["template"]["spec"]["volumes"]
    (keys,) = [one["secret"] for one in volumes if one["name"] == "keys"]
    assert keys["secretName"] == "penstock-keys"
    assert not keys.get("optional")


def test_rendering_is_the_same_each_time() -> None:
    """Nothing is drawn at random, nothing depends on the time."""
    assert render().text == rendered("default").text
