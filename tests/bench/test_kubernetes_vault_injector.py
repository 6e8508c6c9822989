"""What Vault's agent injector is given: objects, annotations and an image with a shell."""

import base64
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.kubernetes_field import WHERE
from bench.kubernetes_vault_injector import (
    BUNDLE,
    injector_objects,
    nginx_settings,
    vault_application,
    with_program,
)
from tests.kubernetes.archives import write_image


def of_kind(kind: str) -> Any:
    """Return the only object of a kind that is applied."""
    (found,) = [one for one in injector_objects("a root\n") if one["kind"] == kind]
    return found


def test_application_asks_vault_and_not_penstock() -> None:
    """By annotations alone; the pod is as strict as the namespace wants it."""
    template = vault_application("web", 3)["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["vault.hashicorp.com/agent-inject"] == "true"
    assert not [key for key in annotations if "penstock" in key]
    asked = annotations["vault.hashicorp.com/agent-inject-template-bundle.pem"]
    assert f'"common_name=web.{WHERE}.svc"' in asked
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_nginx_reads_what_the_agent_writes() -> None:
    """The key and its chain from one file, and nothing where Penstock would write."""
    settings = nginx_settings()
    volumes = vault_application("web", 1)["spec"]["template"]["spec"]["volumes"]
    assert {"name": settings["metadata"]["name"]} in [one.get("configMap") for one in volumes]
    text = settings["data"]["nginx.conf"]
    assert f"ssl_certificate {BUNDLE};" in text
    assert f"ssl_certificate_key {BUNDLE};" in text
    assert "penstock" not in text


def test_webhook_leads_to_the_injector_and_leaves_other_namespaces_alone() -> None:
    """A pod that it can't be asked about is refused, so that none is waited for in vain."""
    (hook,) = of_kind("MutatingWebhookConfiguration")["webhooks"]
    service = of_kind("Service")
    assert hook["clientConfig"]["service"] == {**service["metadata"], "path": "/mutate"}
    assert service["spec"]["selector"] == of_kind("Deployment")["spec"]["selector"]["matchLabels"]
    assert hook["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": WHERE}
    assert hook["failurePolicy"] == "Fail"


def test_injector_has_its_own_limits_and_a_request_that_fits_the_node() -> None:
    """What users get, but for the request of processor time."""
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    said = {one["name"]: one["value"] for one in container["env"]}
    limits = {key: said[f"AGENT_INJECT_{key}"] for key in ("CPU_LIMIT", "MEM_LIMIT", "MEM_REQUEST")}
    assert limits == {"CPU_LIMIT": "500m", "MEM_LIMIT": "128Mi", "MEM_REQUEST": "64Mi"}
    assert said["AGENT_INJECT_CPU_REQUEST"] == "1m"
    assert base64.b64decode(said["AGENT_INJECT_VAULT_CACERT_BYTES"]) == b"a root\n"


def test_layer_has_the_program_beside_what_was_there(tmp_path: Path) -> None:
    """It may be run by anybody."""
    shell, program = tmp_path / "sh", tmp_path / "vault"
    shell.write_bytes(b"a shell")
    program.write_bytes(b"a program")
    write_image(tmp_path / "base.tar", "local.test/base:1", files={"bin/sh": shell})
    with_program(tmp_path / "base.tar", tmp_path / "layer.tar", program, "usr/bin/vault")
    with tarfile.open(tmp_path / "layer.tar") as layer:
        assert layer.getnames() == ["bin/sh", "usr/bin/vault"]
        assert layer.getmember("usr/bin/vault").mode == 0o755
        found = layer.extractfile("usr/bin/vault")
        assert found is not None
        assert found.read() == b"a program"


def test_image_of_several_layers_is_refused(tmp_path: Path) -> None:
    """What is written is one layer: the rest would be lost."""
    (tmp_path / "manifest.json").write_text('[{"Layers": ["one", "two"]}]')
    with tarfile.open(tmp_path / "base.tar", "w") as image:
        image.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(ValueError, match="too many values"):
        with_program(tmp_path / "base.tar", tmp_path / "layer.tar", tmp_path / "x", "x")
