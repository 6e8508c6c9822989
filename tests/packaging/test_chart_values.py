"""Values that contradict each other stop with a sentence; those that fit make a broker."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.packaging.charts import EXAMPLES, VALUE_SETS, rendered
from tests.peers.helm import Rendered, RenderFailed, render

pytestmark = pytest.mark.peers

APPROLE = {
    "addresses": ["https://vault.example:8200"],
    "serve": {"method": "approle", "role_id": "file:/x", "secret_id": "file:/y"},
}
BY_TOKEN = {
    "addresses": ["https://vault.example:8200"],
    "serve": {"method": "kubernetes", "role": "penstock"},
}
IN_VAULT = {"passphrase": "vault:kv/penstock#passphrase"}

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
CLUSTER = {
    "issuer": "https://a.example",
    "keys": "/etc/keys.jwks",
    "rules": [{"namespaces": ["*"], "service_accounts": ["*"]}],
}

ISSUER = {
    "issuer": "https://sso.example",
    "audience": "penstock",
    "keys_url": "https://sso.example/k",
}
PERSON = {"users": ["jane"], "roles": {"*": ["viewer"]}}
ROOTS = {
    "server": "https://other.example",
    "token": "file:/x",
    "ca_bundle": "/x",
    "namespace": "other",
    "name": "other",
}

CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "two brokers": ({"replicaCount": 2}, "two brokers with it would order twice"),
    "no broker": ({"replicaCount": 0}, "replicaCount is 0"),
    "a store that is not there": ({"store": {"kind": "postgresql"}}, "there is no such store yet"),
    "a budget that nothing can be drained by": (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "no node that it is on could ever be drained",
    ),
    "a state directory": ({"config": {"state": "/data"}}, "config.state is where the chart mounts"),
    "directories of policies": ({"config": {"policies": ["/p"]}}, "config.policies is where"),
    "an address": (
        {"config": {"listen": {"agents": {"address": "0.0.0.0:1"}}}},
        "config.listen.agents.address is the chart's",
    ),
    "a certificate in config": (
        {"config": {"listen": {"acme": {"from": "local"}}}},
        "say under tls where the broker's certificate comes from",
    ),
    "two addresses of the broker": (
        {"url": "https://a.example", "config": {"external_url": "https://b.example"}},
        "url is https://a.example and config.external_url is https://b.example",
    ),
    "a CA to make that is not there": (
        {"prepare": {"cas": {"locla": []}}},
        "prepare.cas.locla: config.upstreams has no built-in CA of that name",
    ),
    "a certificate from nobody": (
        {"tls": {"upstream": "corp"}},
        "tls.upstream is corp, which config.upstreams does not have",
    ),
    "a token for no Vault": ({"vault": {"enabled": True}}, "config.vault does not say where"),
    "no token for Vault": (
        {"config": {"vault": BY_TOKEN, "keys": IN_VAULT}},
        "no token is mounted for that: set vault.enabled",
    ),
    "a login that is good once": (
        {"vault": {"enabled": True}, "config": {"vault": APPROLE, "keys": IN_VAULT}},
        "would use it up before the broker",
    ),
    "two passphrases": (
        {"keys": {"existingSecret": "mine"}, "config": {"keys": {"passphrase": "env:PASS"}}},
        "config.keys.passphrase is env:PASS and keys.existingSecret is mine",
    ),
    "no passphrase": ({"keys": {"generate": False}}, "nothing says where the passphrase"),
    "no Secret": ({"tls": {"source": "secret"}}, "tls.secretName is empty"),
    "a Secret for nothing": ({"tls": {"secretName": "x"}}, "tls.secretName is x and tls.source is"),
    "no issuer": ({"tls": {"source": "certManager"}}, "tls.certManager.issuerName is empty"),
    "an issuer for nothing": (
        {"tls": {"certManager": {"issuerName": "x"}}},
        "tls.certManager.issuerName is x and tls.source is self",
    ),
    "a certificate that pods cannot verify": (
        {"tls": {"source": "secret", "secretName": "x"}},
        "pods would have nothing to verify the broker by",
    ),
    "roots for nothing": ({"tls": {"caKey": "ca.crt"}}, "the broker knows its own roots"),
    "pods without a CA of nodes": (
        {"config": {"agents": None}},
        "config.agents says nothing of who certifies nodes",
    ),
    "one cluster twice": (
        {"config": {"agents": {"clusters": {"cluster": CLUSTER}}}},
        "speak of the same cluster",
    ),
    "two clusters of one issuer": (
        {"config": {"agents": {"clusters": {"other": {**CLUSTER, "issuer": DEFAULT_ISSUER}}}}},
        "config.agents.clusters.other has the issuer of cluster.issuer",
    ),
    "two clusters of one issuer, by a template": (
        {
            "config": {
                "agents": {
                    "clusters": {"other": {**CLUSTER, "issuer": "{{ .Values.cluster.issuer }}"}}
                }
            }
        },
        "config.agents.clusters.other has the issuer of cluster.issuer",
    ),
    "rules for nobody": ({"cluster": {"rules": []}}, "no pod could enrol"),
    "sidecars that cannot enrol": (
        {"cluster": {"enabled": False}},
        "none of them could enrol",
    ),
    "an issuer of the chart's": (
        {"config": {"operators": {"issuers": {"cluster": ISSUER}}}},
        "config.operators.issuers.cluster is the chart's",
    ),
    "a person of the chart's": (
        {"config": {"operators": {"people": {"penstock-admission": PERSON}}}},
        "config.operators.people.penstock-admission is the chart's",
    ),
    **{
        f"{key} of the roots": (
            {"config": {"publishing": {"trust": {key: value}}}},
            f"config.publishing.trust.{key} is the chart's",
        )
        for key, value in ROOTS.items()
    },
    "roots in place of those of Kubernetes": (
        {"admission": {"trustConfigMap": "kube-root-ca.crt"}},
        "admission.trustConfigMap is kube-root-ca.crt, which Kubernetes keeps",
    ),
    "admission without anybody to ask": (
        {"services": {"operators": {"enabled": False}}},
        "services.operators.enabled is false",
    ),
    "admission that can never be drained": (
        {"admission": {"replicaCount": 1}},
        "admission.podDisruptionBudget.minAvailable is 1 of 1 replicas",
    ),
    "no service account": ({"serviceAccount": {"create": False}}, "serviceAccount.name is empty"),
    "no service account of admission": (
        {"admission": {"serviceAccount": {"create": False}}},
        "admission.serviceAccount.name is empty",
    ),
    "a claim for nothing": (
        {"persistence": {"enabled": False, "existingClaim": "x"}},
        "persistence.existingClaim is x and persistence.enabled is false",
    ),
    "no policy": (
        {"policies": {"files": {"default.yaml": None}}},
        "nothing would be allowed",
    ),
    "a balancer's settings without one": (
        {"services": {"acme": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}},
        "only a LoadBalancer has a class and source ranges",
    ),
    "a template that gives no YAML": (
        {"config": {"external_url": "{{ printf `%c` 39 }} ["}},
        "config: what its templates give is no YAML",
    ),
}
"""What is wrong → values, and what the sentence says."""


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradiction_stops_with_a_sentence(what: str) -> None:
    """That names both sides; the chart without the change is rendered by every other test."""
    change, sentence = CONTRADICTIONS[what]
    with pytest.raises(RenderFailed) as refused:
        render(values=change)
    assert sentence in str(refused.value)


def test_every_sentence_of_the_chart_is_tried() -> None:
    """None is there that no row above leads to."""
    template = EXAMPLES.parent / "penstock" / "templates" / "_contradictions.tpl"
    count = template.read_text("utf-8").count("{{- fail ")
    several = {"directories of policies", "no broker", "two clusters of one issuer, by a template"}
    several |= {f"{key} of the roots" for key in ROOTS if key != "name"}
    elsewhere = {"a template that gives no YAML"}
    assert count == len(CONTRADICTIONS) - len(several) - len(elsewhere)


def place(made: Rendered, root: Path) -> Path:
    """Write what the broker would find below *root* instead of the root, and return its file."""
    config: str = made.one("ConfigMap", "penstock-config")["data"]["penstock.yaml"]
    policies = made.one("ConfigMap", "penstock-policies")["data"]
    files = {
        "/etc/penstock/config/penstock.yaml": config,
        "/etc/penstock/keys/passphrase": "a passphrase that is long enough",
    }
    for name, text in policies.items():
        files[f"/etc/penstock/policies/penstock-policies/{name}"] = text
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = text
        for folder in ("/etc/penstock", "/var/lib/penstock", "/var/run/secrets"):
            moved = moved.replace(folder, f"{root}{folder}")
        path.write_text(moved, "utf-8")
    return root / "etc/penstock/config/penstock.yaml"


def check(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `penstock check` with *config*."""
    return subprocess.run(
        [sys.executable, "-m", "broker", "check", *words, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLES.parents[1],
    )


CHECKED = [name for name in VALUE_SETS if name != "gitops"]
"""Sets of values that make configuration and policies themselves."""


@pytest.mark.parametrize("name", CHECKED)
def test_broker_takes_what_the_chart_makes(name: str, tmp_path: Path) -> None:
    """Configuration and policies together pass `penstock check` without a warning."""
    config = place(rendered(name), tmp_path)
    done = check(config, "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert "default" in done.stdout


def test_fault_in_a_policy_would_be_seen(tmp_path: Path) -> None:
    """The twin: one wrong upstream, told with file and line."""
    config = place(rendered("default"), tmp_path)
    policy = tmp_path / "etc/penstock/policies/penstock-policies/default.yaml"
    policy.write_text(policy.read_text("utf-8").replace("upstream: local", "upstream: locla"))
    done = check(config)
    assert done.returncode == 2
    assert "default.yaml" in done.stderr


def config_of(**values: Any) -> dict[str, Any]:
    """Return penstock.yaml as the chart makes it."""
    text = render(values=values).one("ConfigMap", "penstock-config")["data"]["penstock.yaml"]
    made: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return made


SHORT = ["{service}.{namespace}.svc"]
ADMISSION = "penstock-admission.penstock.svc"
OWN = {
    "namespaces": ["penstock"],
    "service_accounts": ["penstock-admission"],
    "names": [ADMISSION, f"{ADMISSION}.cluster.local"],
}
SHOP = {"namespaces": ["shop"], "service_accounts": ["*"], "names": SHORT}
ALL = {"namespaces": ["*"], "service_accounts": ["*"], "names": SHORT}
TEAM = {"community": "pods", "owner": "platform", "profiles": ["server"]}
STAGING = {
    "issuer": "https://staging.example",
    "keys": "/etc/penstock/staging.jwks",
    "rules": [{"namespaces": ["*"], "service_accounts": ["*"], "names": ["{pod}.{namespace}.svc"]}],
}

RULES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "another namespace": ([SHOP], OWN),
    "short names alone": ([ALL], OWN),
    "another community": ([{**ALL, "names": SHORT, **TEAM}], {**OWN, **TEAM}),
    "the first of two that fit": ([{**ALL, "owner": "a"}, ALL], {**OWN, "owner": "a"}),
    "a community of others": ([{**SHOP, **TEAM}], {**OWN, "community": "pods"}),
    "upstreams and a node": (
        [{**ALL, "upstreams": ["local"], "node": "{pod}.{namespace}.shop.{cluster}"}],
        OWN,
    ),
    "a template": (
        [{**ALL, "namespaces": ["{{ .Release.Namespace }}"], "owner": "b"}],
        {**OWN, "owner": "b"},
    ),
}
"""What somebody puts in place of the rules → the rules, and the chart's own before them."""


def own_policy(community: str) -> dict[str, str]:
    """Return the chart's policy, for *community*."""
    text = rendered("default").one("ConfigMap", "penstock-policies")["data"]["default.yaml"]
    return {"default.yaml": text.replace("community: default", f"community: {community}")}


@pytest.mark.parametrize("what", RULES)
def test_admission_has_its_rule_whatever_the_others_are(what: str, tmp_path: Path) -> None:
    """Else its certificate ends, and with it every new pod where the webhook fails closed."""
    rules, own = RULES[what]
    community = rules[0].get("community", "default")
    upstreams = {name: {"communities": [community]} for name in ("local", "nodes")}
    made = render(
        values={
            "cluster": {"rules": rules},
            "config": {"communities": {community: {}}, "upstreams": upstreams},
            "policies": {"files": own_policy(community)},
        }
    )
    config = place(made, tmp_path)
    done = check(config, "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = YAML(typ="safe", pure=True).load(config)
    first, *others = loaded["agents"]["clusters"]["cluster"]["rules"]
    assert first == own
    assert [one["names"] for one in others] == [SHORT] * len(rules)


def test_shared_names_admitted(tmp_path: Path) -> None:
    """As far as the rule says that would fit otherwise; the twin says nothing and is refused."""
    results = {}
    for mine, theirs in ((["staging"], ["cluster"]), ([], [])):
        rules = [{**rule, "shared_with": theirs} for rule in STAGING["rules"]]
        clusters = {"staging": {**STAGING, "rules": rules}}
        made = render(
            values={
                "cluster": {"rules": [{**ALL, "shared_with": mine}]},
                "config": {"agents": {"clusters": clusters}},
            }
        )
        root = tmp_path / ("told" if mine else "not")  # short: there is a socket below
        (root / "etc/penstock").mkdir(parents=True)
        (root / "etc/penstock/staging.jwks").write_text('{"keys": []}')
        results[bool(mine)] = check(place(made, root))
    assert (results[True].returncode, results[True].stderr) == (0, "")
    assert f"can be had from cluster 'cluster' too, by name '{ADMISSION}'" in results[False].stderr


def test_clusters_of_one_issuer_are_trusted_by_their_keys(tmp_path: Path) -> None:
    """As two clusters that were never told otherwise are; the chart reads its own one's keys."""
    names = ["{pod}.{namespace}.staging.example"]
    rule = {"namespaces": ["*"], "service_accounts": ["*"], "names": names}
    alike = {**STAGING, "issuer": DEFAULT_ISSUER, "rules": [rule]}
    made = render(
        values={
            "cluster": {"tokens": "keys", "rules": [ALL]},
            "config": {"agents": {"clusters": {"staging": alike}}},
        }
    )
    (tmp_path / "etc/penstock").mkdir(parents=True)
    (tmp_path / "etc/penstock/staging.jwks").write_text('{"keys": []}')
    config = place(made, tmp_path)
    done = check(config)
    assert (done.returncode, done.stderr) == (0, "")
    own = YAML(typ="safe", pure=True).load(config)["agents"]["clusters"]["cluster"]
    assert own["keys_url"] == "https://kubernetes.default.svc/openid/v1/jwks"
    assert own["keys_token"].startswith("file:")
    assert "review" not in own


def test_rule_of_admission_goes_with_it_and_follows_its_names() -> None:
    """The twin: without admission the rules are the user's own; with other names it has those."""
    rules = {"cluster": {"rules": [SHOP]}}
    without = config_of(admission={"enabled": False}, **rules)
    assert without["agents"]["clusters"]["cluster"]["rules"] == [SHOP]
    account = {"create": False, "name": "webhooks"}
    own = config_of(
        admission={"serviceAccount": account}, cluster={"rules": [SHOP], "domain": "prod.example"}
    )["agents"]["clusters"]["cluster"]["rules"][0]
    assert own["service_accounts"] == ["webhooks"]
    assert own["names"] == [ADMISSION, f"{ADMISSION}.prod.example"]


def test_issuers_people_and_roots_beside_the_charts_may_be_said() -> None:
    """The twin of what is refused: other names, further roots, and without admission those too."""
    operators = {"issuers": {"sso": ISSUER}, "people": {"jane": PERSON}}
    trust = {"communities": ["default"], "also": ["/etc/penstock/files/more/ca.crt"]}
    tls = {"source": "secret", "secretName": "x", "caKey": "ca.crt"}
    made = config_of(config={"operators": operators, "publishing": {"trust": trust}}, tls=tls)
    assert set(made["operators"]["issuers"]) == {"sso", "cluster"}
    assert set(made["operators"]["people"]) == {"jane", "penstock-admission"}
    assert made["publishing"]["trust"]["communities"] == ["default"]
    assert made["publishing"]["trust"]["also"] == ["/etc/penstock/tls/ca.crt", *trust["also"]]
    alone = {"issuers": {"cluster": ISSUER}, "people": {"penstock-admission": PERSON}}
    without = config_of(admission={"enabled": False}, config={"operators": alone})
    assert without["operators"] == alone


def test_part_of_a_listener_that_is_not_the_charts_may_be_said() -> None:
    """It stands beside what the chart adds."""
    proxies = {"proxies": ["10.0.7.0/24"]}
    acme = config_of(config={"listen": {"acme": proxies, "tls_alpn": {}}})["listen"]["acme"]
    assert acme["proxies"] == ["10.0.7.0/24"]
    assert acme["address"] == "0.0.0.0:8443"


def test_broker_is_certified_for_every_name_that_it_is_reached_by() -> None:
    """Short and long, of each Service, and what else is said."""
    names = config_of(tls={"extraNames": ["acme.corp.example"]})["listen"]["acme"]["names"]
    assert names == [
        f"penstock{service}.penstock.svc{domain}"
        for service in ("", "-agents", "-operators")
        for domain in ("", ".cluster.local")
    ] + ["acme.corp.example"]


def test_cluster_of_another_name_and_domain_is_followed_everywhere() -> None:
    """By rules, policy and names alike."""
    made = render(values={"cluster": {"name": "prod", "domain": "prod.example"}})
    text = made.one("ConfigMap", "penstock-config")["data"]["penstock.yaml"]
    text += made.one("ConfigMap", "penstock-policies")["data"]["default.yaml"]
    assert "cluster.local" not in text.replace("kubernetes.default.svc.cluster.local", "")
    assert "**.svc.prod.example" in text
    assert '"**.prod"' in text


@pytest.mark.parametrize("values", ["default", "gitops"])
def test_built_in_cas_are_made_whoever_keeps_the_configuration(values: str) -> None:
    """Without them nobody is certified; `null` takes one out."""
    spec = rendered(values).one("StatefulSet", "penstock")["spec"]["template"]["spec"]
    (prepare,) = spec["initContainers"]
    asked = [one for one in prepare["args"] if one.startswith("--make-ca=")]
    assert asked == ["--make-ca=local", "--make-ca=nodes=node.penstock.internal"]
    fewer = render(
        EXAMPLES / "values" / "gitops.yaml", values={"prepare": {"cas": {"local": None}}}
    )
    spec = fewer.one("StatefulSet", "penstock")["spec"]["template"]["spec"]
    assert "--make-ca=local" not in spec["initContainers"][0]["args"]
