"""The same application with a sidecar from Vault's agent injector, and a certificate from its PKI.

It is the nearest to what Penstock does: a key and a certificate for each pod, by annotation.  The
injector is the published one, built from source; Vault runs beside the cluster, keeps everything in
memory and asks the API server about the pods' tokens.
"""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.kubernetes_field import PASSED_BY, WHERE, Field
from tests.kubernetes.applications import NGINX, USER, application
from tests.kubernetes.archives import write_image
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.configuration import ISSUER
from tests.kubernetes.node import ClusterFailed
from tests.kubernetes.pods import STRICT
from tests.kubernetes.programs import PYTHON_TREE, tree_archive
from tests.kubernetes.vault_beside import HOST, PORT, VaultBeside
from tests.kubernetes.vault_beside import WHERE as VAULT_WHERE
from tests.peers.installation import GoPeer, PeerMissing, command_of, go_home, go_toolchain
from tests.peers.installation import installed as installed_peer
from tests.peers.installing import CannotInstall, install_go_peer
from tests.peers.process import PeerFailed, wait_until

__all__ = [
    "AGENT",
    "BUNDLE",
    "PEER",
    "injector_objects",
    "injector_program",
    "measure_vault_injector",
    "nginx_settings",
    "vault_application",
    "with_program",
]

PEER: Final = GoPeer(
    "vault-k8s",
    "1.6.2",
    "github.com/hashicorp/vault-k8s",
    "h1:AK8Umjbh9fVgbnf5oZDDEH6Z4xYxVvTYuWIeV20Dgn4=",
    ".",
)
"""The injector, built where it is missing: nothing but this measurement needs it."""

INJECTOR: Final = "vault-agent-injector"
AGENT: Final = "vault-agent"
"""What the injector calls its sidecar."""

ROLE: Final = "bench"
ANNOTATION: Final = "vault.hashicorp.com"
INJECTOR_IMAGE: Final = "local.test/vault-k8s:bench"
AGENT_IMAGE: Final = "local.test/vault:bench"
PROGRAM: Final = "usr/bin/vault"
SETTINGS: Final = "nginx-vault"
BUNDLE: Final = "/vault/secrets/bundle.pem"
"""Where the agent writes a key and its chain; in one file, or its next start asks for another."""

REQUESTED_CPU: Final = "1m"
"""Instead of the injector's 250m, of which a node of two cores takes seven pods and no more."""

START_SECONDS: Final = 120


def measure_vault_injector(
    field_of: Field, home: Path, singles: int, pods: int, at_rest: Callable[[str], object]
) -> tuple[list[float], list[float]]:
    """Return how long one pod took each time, and how long each of *pods* at once took.

    While those are there, *at_rest* is called with the name of their application.
    """
    home.mkdir(parents=True, exist_ok=True)
    cluster = field_of.cluster
    _load_images(cluster, home)
    vault = VaultBeside(cluster)
    vault.start()
    field_of.roots = _make_issuer(vault, home)
    cluster.apply(*injector_objects(vault.ca_pem), nginx_settings())
    _wait_injecting(cluster)

    def start(name: str, count: int) -> list[float]:
        return field_of.start(name, count, objects=[vault_application(name, count)])

    alone = []
    for number in range(singles):
        alone += start(f"vaults{number}", 1)
        field_of.remove(f"vaults{number}")
    together = start("vaults", pods)
    at_rest("vaults")
    field_of.remove("vaults")
    # Pods of others shall not pass by it.
    cluster.kubectl("delete", "mutatingwebhookconfiguration", INJECTOR)
    cluster.kubectl("delete", "deployment", INJECTOR, "-n", VAULT_WHERE)
    return alone, together


def injector_program() -> Path:
    """Return the injector's program, built where it is missing.

    Raises:
        PeerMissing: It can't be built; with what the compiler or the module proxy said.
    """
    try:
        install_go_peer(PEER)
    except CannotInstall as error:
        raise PeerMissing(str(error)) from error
    toolchain = go_toolchain()
    assert toolchain is not None
    return command_of(go_home(PEER, toolchain[1]), PEER.name)


def with_program(source: Path, target: Path, program: Path, path: str) -> None:
    """Write the only layer of an image to *target*, with one program more at *path*."""
    with tarfile.open(source) as image:
        (described,) = json.loads(_read(image, "manifest.json").read())
        (layer,) = described["Layers"]
        with target.open("wb") as copy:
            shutil.copyfileobj(_read(image, layer), copy)
    with tarfile.open(target, "a") as archive, program.open("rb") as content:
        entry = tarfile.TarInfo(path)
        entry.size = program.stat().st_size
        entry.mode = 0o755
        archive.addfile(entry, content)


def vault_application(name: str, pods: int) -> dict[str, Any]:
    """Return the application with the injector's annotations instead of Penstock's."""
    made = application(name, WHERE, replicas=pods)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = _annotations(name)
    template["metadata"]["labels"] |= PASSED_BY
    # The injector says nothing of system calls, which the namespace insists on.
    template["spec"]["securityContext"]["seccompProfile"] = STRICT["seccompProfile"]
    (settings,) = [one for one in template["spec"]["volumes"] if one["name"] == "settings"]
    settings["configMap"] = {"name": SETTINGS}
    return made


def injector_objects(ca_pem: str) -> list[dict[str, Any]]:
    """Return the injector as its publisher deploys it, one replica of it, for one namespace.

    Other than there, a pod that it can't be asked about is refused: without a certificate it would
    never serve, and be waited for all the same.
    """
    who = {"name": INJECTOR, "namespace": VAULT_WHERE}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": who},
        *_rights(who),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": who,
            "spec": {
                "selector": {"app": INJECTOR},
                "ports": [{"name": "https", "port": 443, "targetPort": 8080}],
            },
        },
        _deployment(who, ca_pem),
        _webhook(who),
    ]


def _annotations(name: str) -> dict[str, str]:
    host = f"{name}.{WHERE}.svc"
    template = (
        f'{{{{- with pkiCert "pki/issue/{ROLE}" "common_name={host}" -}}}}\n'
        "{{ .Data.Key }}{{ .Data.Cert }}{{ .Data.CA }}\n"
        "{{- end -}}\n"
    )
    file = BUNDLE.rpartition("/")[2]
    said = {
        "agent-inject": "true",
        "role": ROLE,
        "agent-run-as-user": f"{USER}",
        "agent-run-as-group": f"{USER}",
        f"agent-inject-secret-{file}": f"pki/issue/{ROLE}",
        f"agent-inject-template-{file}": template,
        f"agent-inject-perms-{file}": "0600",
    }
    return {f"{ANNOTATION}/{key}": value for key, value in said.items()}


def nginx_settings() -> dict[str, Any]:
    """Return nginx's configuration with the key and the chain in one file."""
    given = "/var/run/penstock/tls/tls"
    text = NGINX.replace(f"{given}.crt", BUNDLE).replace(f"{given}.key", BUNDLE)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SETTINGS, "namespace": WHERE},
        "data": {"nginx.conf": text},
    }


def _rights(who: Mapping[str, str]) -> list[dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "verbs": ["get", "list", "watch", "patch"],
    }
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": INJECTOR},
            "rules": [rule],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": INJECTOR},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": INJECTOR},
            "subjects": [{"kind": "ServiceAccount", **who}],
        },
    ]


def _deployment(who: Mapping[str, str], ca_pem: str) -> dict[str, Any]:
    said = {
        "NAMESPACE": VAULT_WHERE,
        "AGENT_INJECT_LISTEN": ":8080",
        "AGENT_INJECT_VAULT_ADDR": f"https://{HOST}:{PORT}",
        "AGENT_INJECT_VAULT_CACERT_BYTES": base64.b64encode(ca_pem.encode()).decode(),
        "AGENT_INJECT_VAULT_IMAGE": AGENT_IMAGE,
        "AGENT_INJECT_TLS_AUTO": INJECTOR,
        "AGENT_INJECT_TLS_AUTO_HOSTS": f"{INJECTOR}.{VAULT_WHERE}.svc",
        "AGENT_INJECT_CPU_REQUEST": REQUESTED_CPU,
        "AGENT_INJECT_MEM_REQUEST": "64Mi",
        "AGENT_INJECT_CPU_LIMIT": "500m",
        "AGENT_INJECT_MEM_LIMIT": "128Mi",
    }
    ready = {"path": "/health/ready", "port": 8080, "scheme": "HTTPS"}
    container = {
        "name": "sidecar-injector",
        "image": INJECTOR_IMAGE,
        "args": ["agent-inject"],
        "env": [{"name": name, "value": value} for name, value in said.items()],
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2},
        "securityContext": dict(STRICT),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": dict(who),
        "spec": {
            "selector": {"matchLabels": {"app": INJECTOR}},
            "template": {
                "metadata": {"labels": {"app": INJECTOR}},
                "spec": {"serviceAccountName": INJECTOR, "containers": [container]},
            },
        },
    }


def _webhook(who: Mapping[str, str]) -> dict[str, Any]:
    created = {"operations": ["CREATE"], "scope": "Namespaced"}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": INJECTOR},
        "webhooks": [
            {
                "name": ANNOTATION,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                # By whom it is verified the injector writes here itself.
                "clientConfig": {"service": {**who, "path": "/mutate"}},
                "rules": [{**created, **pods}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": WHERE}},
                "failurePolicy": "Fail",
            }
        ],
    }


def _load_images(cluster: Cluster, home: Path) -> None:
    """Give the node the injector, and Vault with the shell that the injector starts it by."""
    injector, agent = home / "vault-k8s.tar", home / "vault.tar"
    files = {PEER.name: injector_program()}
    write_image(injector, INJECTOR_IMAGE, files=files, entrypoint=[f"/{PEER.name}"], user=USER)
    layer = home / "layer.tar"
    with_program(tree_archive(PYTHON_TREE), layer, installed_peer("vault"), PROGRAM)
    write_image(agent, AGENT_IMAGE, layer=layer)
    for archive in (injector, agent):
        cluster.load_image(archive)
        archive.unlink()
    layer.unlink()


def _make_issuer(vault: VaultBeside, home: Path) -> str:
    """Let pods of the namespace have certificates of Vault's PKI; return its root."""
    policy = home / "policy.hcl"
    policy.write_text(f'path "pki/issue/{ROLE}" {{ capabilities = ["create", "update"] }}\n')
    key = ("key_type=ec", "key_bits=256")
    vault.vault("secrets", "enable", "-max-lease-ttl=720h", "pki")
    named = ("common_name=vault in a benchmark", "ttl=720h")
    made = ("write", "-field=certificate", "pki/root/generate/internal")
    root = vault.vault(*made, *named, *key)
    names = (f"allowed_domains={WHERE}.svc", "allow_subdomains=true", "ttl=24h")
    vault.vault("write", f"pki/roles/{ROLE}", *names, *key)
    vault.vault("policy", "write", ROLE, str(policy))
    account = ("bound_service_account_names=default", f"bound_service_account_namespaces={WHERE}")
    granted = (f"token_policies={ROLE}", "token_ttl=1h", f"audience={ISSUER}")
    vault.vault("write", f"auth/kubernetes/role/{ROLE}", *account, *granted)
    return root


def _wait_injecting(cluster: Cluster) -> None:
    """Wait until a pod would be given the sidecar; none is made.

    Raises:
        ClusterFailed: None was in time; with the injector's log and the last refusal.
    """
    template = vault_application("asked", 1)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "asked", "namespace": WHERE}
    refused: list[str] = []

    def is_injected() -> bool:
        create = ("create", "--dry-run=server", "-o", "json", "-f", "-")
        try:
            told = json.loads(cluster.kubectl(*create, text=json.dumps(pod)))
        except ClusterFailed as error:
            refused.append(str(error))
            return False
        return AGENT in [one["name"] for one in told["spec"]["containers"]]

    try:
        wait_until(is_injected, START_SECONDS, "the injector adds its sidecar")
    except PeerFailed as error:
        told = [str(error), *refused[-1:], cluster.story(VAULT_WHERE)]
        raise ClusterFailed("\n".join(told)) from error


def _read(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None
    return found
