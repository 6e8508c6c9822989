"""What the broker needs in Vault, written down for the people who review it and run it.

Either the policies alone, in HCL, or a shell script of ``vault`` commands that may be run again.
Nothing secret stands in it, and nothing of it is run from here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broker.app.vault_setup import Policy, Role, Rule, Setup
from broker.config.vault import AppRoleLogin, CertificateLogin, KubernetesLogin, TokenLogin
from broker.protocol.problems import printable

__all__ = ["Wishes", "write_policies", "write_script"]

SERVE_LIFE: Final = "1h"
"""How long a token of *serve* lives unless it is renewed, which is done at two thirds of that."""

LONGEST_SERVE_LIFE: Final = "24h"
"""When a token of *serve* ends although it was renewed, where logging in anew needs nobody."""

ROTATE_LIFE: Final = "10m"
"""How long a token of *rotate* lives: a rotation takes seconds, an answer of a slow CA included."""

LONGEST_ROTATE_LIFE: Final = "1h"
"""When a token of *rotate* ends although it was renewed."""

SECRET_ID_LIFE: Final = "2160h"
"""How long a secret id can be logged in with: 90 days, within which it is delivered anew."""

WRAPPING_LIFE: Final = "5m"
"""How long a wrapped secret id waits to be opened, in the delivery that is shown."""

MAX_LINE: Final = 2000
"""Longest line that is left to a person, in characters."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the configuration does not know, since only Vault has to."""

    service_account: str = "penstock/penstock"
    """Namespace and name of the service account, for the Kubernetes login."""
    audience: str = "vault"
    """Audience of its projected token."""


def write_policies(setup: Setup) -> str:
    """Return all policies in HCL, each under its name."""
    return "\n".join(
        f"# policy {policy.name}: {policy.title}\n{_policy(policy)}" for policy in setup.policies
    )


def write_script(setup: Setup, *, of: str, wishes: Wishes | None = None) -> str:
    """Return a shell script that sets Vault up; *of* names the broker it is for.

    What stands there already is left or written again, so that it may be run twice.
    """
    known = wishes or Wishes()
    lines = [
        *_head(setup, of),
        *_engines(setup),
        *_keys(setup),
        *_acl(setup),
        *_logins(setup, known),
        *_remaining(setup),
    ]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------- HCL


def _policy(policy: Policy) -> str:
    return "\n".join(_rule(rule) for rule in policy.rules)


def _rule(rule: Rule) -> str:
    lines = [f"# {rule.why}", f"path {json.dumps(rule.path)} {{"]
    lines.append(f"  capabilities = {json.dumps(list(rule.capabilities))}")
    if rule.parameters:
        lines.append("  allowed_parameters = {")
        lines += [
            f"    {json.dumps(name)} = {json.dumps(list(values))}"
            for name, values in rule.parameters.items()
        ]
        lines.append("  }")
    if rule.wrapping is not None:
        lines.append(f'  min_wrapping_ttl = "{rule.wrapping[0]}"')
        lines.append(f'  max_wrapping_ttl = "{rule.wrapping[1]}"')
    return "\n".join([*lines, "}", ""])


# --------------------------------------------------------------------------------------- commands


def _head(setup: Setup, of: str) -> Iterator[str]:
    vault = setup.vault
    yield "#!/bin/sh"
    yield f"# What the broker at {of} needs in Vault: engines, keys, policies and roles."
    yield "# Review it, then run it as somebody who may do all this. It may be run again."
    yield "set -eu"
    yield from _default("VAULT_ADDR", vault.addresses[0])
    if vault.namespace is not None:
        yield f"export VAULT_NAMESPACE={shlex.quote(vault.namespace)}"
    if vault.ca_bundle is not None:
        yield from _default("VAULT_CACERT", str(vault.ca_bundle))
    yield ""
    yield "# An audit device tells who signed what and when; have one before any key is made:"
    yield "#   vault audit enable file file_path=/var/log/vault/audit.log"
    yield ""
    yield "is_mounted() {"
    yield '  vault "$1" list -format=json | grep -F "\\"$2/\\":" > /dev/null'
    yield "}"


def _default(name: str, value: str) -> Iterator[str]:
    """Yield what sets a variable unless it is set: whoever runs this has every right in Vault, and
    nothing of the configuration is for the shell to read."""
    yield f'[ -n "${{{name}:-}}" ] || {name}={shlex.quote(value)}'
    yield f"export {name}"


def _engines(setup: Setup) -> Iterator[str]:
    yield "\n# Engines"
    for mount in setup.transit_mounts:
        yield _mounting("secrets", "transit", mount)
    for mount in dict.fromkeys(one.mount for one in setup.kv_paths):
        yield _mounting("secrets", "kv-v2", mount)


def _mounting(what: str, kind: str, mount: str) -> str:
    path = shlex.quote(mount)
    return f"is_mounted {what} {path} || vault {what} enable -path={path} {kind}"


def _keys(setup: Setup) -> Iterator[str]:
    if setup.keys:
        yield "\n# Keys that the broker may not make; one that is there already is left alone"
    for key in setup.keys:
        path = shlex.quote(f"{key.mount}/keys/{key.name}")
        yield f"vault write -force {path} type={key.type}"


def _acl(setup: Setup) -> Iterator[str]:
    yield "\n# Policies"
    for policy in setup.policies:
        yield f"# {policy.title}"
        yield f"vault policy write {shlex.quote(policy.name)} - <<'HCL'"
        yield _policy(policy) + "HCL"


def _logins(setup: Setup, wishes: Wishes) -> Iterator[str]:
    yield "\n# Logins"
    mounted = {
        (login.method, login.mount): None
        for login in (role.login for role in setup.roles)
        if not isinstance(login, TokenLogin)
    }
    kinds = {"approle": "approle", "kubernetes": "kubernetes", "certificate": "cert"}
    for method, mount in mounted:
        yield _mounting("auth", kinds[method], mount)
    for role in setup.roles:
        yield from _login(role, wishes)


def _login(role: Role, wishes: Wishes) -> Iterator[str]:
    login = role.login
    given = [f"token_policies={role.policy.name}", "token_no_default_policy=true"]
    match login:
        case AppRoleLogin():
            given += _lives(role, is_periodic=True)
            given += [f"secret_id_ttl={SECRET_ID_LIFE}", "token_type=service"]
            yield _write(f"auth/{login.mount}/role/{role.name}", given)
        case KubernetesLogin():
            namespace, _, name = wishes.service_account.rpartition("/")
            given += [*_lives(role, is_periodic=False), "token_type=service"]
            given += [
                f"bound_service_account_names={name}",
                f"bound_service_account_namespaces={namespace}",
                f"audience={wishes.audience}",
            ]
            yield _write(f"auth/{login.mount}/role/{login.role}", given)
        case CertificateLogin():
            given += [*_lives(role, is_periodic=False), "token_type=service"]
            given.append(f"allowed_common_names={login.role or role.name}")
            path = f"auth/{login.mount}/certs/{login.role or role.name}"
            asked = "set it to the CA of its client certificates, a file in PEM"
            certificate = f'certificate=@"${{PENSTOCK_CLIENT_CA:?{asked}}}"'
            yield f"{_write(path, given)} \\\n  {certificate}"
        case TokenLogin():
            yield f"# {role.name}: a token is made when it is handed over, see below"


def _lives(role: Role, *, is_periodic: bool) -> list[str]:
    """Return how long its tokens live: one that a person has to help to is renewed for ever."""
    if role.who == "rotate":
        return [f"token_ttl={ROTATE_LIFE}", f"token_max_ttl={LONGEST_ROTATE_LIFE}"]
    if is_periodic:
        return [f"token_period={SERVE_LIFE}"]
    return [f"token_ttl={SERVE_LIFE}", f"token_max_ttl={LONGEST_SERVE_LIFE}"]


def _write(path: str, given: list[str]) -> str:
    words = [shlex.quote(word) for word in (path, *given)]
    return " \\\n  ".join([f"vault write {words[0]}", *words[1:]])


# ------------------------------------------------------------------------- what is not for a script


def _remaining(setup: Setup) -> Iterator[str]:
    """Yield as comments what has a secret in it, or belongs to somebody else."""
    yield "\n# What remains:"
    for one in setup.kv_paths:
        fields = " ".join(f"{name}=@FILE" for name in one.fields)
        yield f"#   vault kv put -mount={shlex.quote(one.mount)} {shlex.quote(one.path)} {fields}"
    # Several roles may log in at one mount, which is set up once.
    for line in dict.fromkeys(line for role in setup.roles for line in _delivery(role)):
        # Paths may have anything in them: a line that they broke would be run.
        yield f"#   {printable(line, MAX_LINE)}"


def _delivery(role: Role) -> Iterator[str]:
    login = role.login
    match login:
        case AppRoleLogin():
            path = shlex.quote(f"auth/{login.mount}/role/{role.name}")
            yield f"vault read -field=role_id {path}/role-id  # to {login.role_id}"
            if login.is_wrapped:
                wrap, of = f"-wrap-ttl={WRAPPING_LIFE} -field=wrapping_token", "wrapped, "
            else:
                wrap, of = "-field=secret_id", ""
            yield f"vault write {wrap} -force {path}/secret-id  # {of}to {login.secret_id}"
        case KubernetesLogin():
            path = f"auth/{login.mount}/config"
            yield f"vault write {path} kubernetes_host=https://…  # unless that was done before"
        case CertificateLogin():
            yield f"a client certificate for {login.role or role.name} in {login.certificate}"
        case TokenLogin():
            life = (
                f"-period={SERVE_LIFE}"
                if role.who == "serve"
                else f"-explicit-max-ttl={SECRET_ID_LIFE}"
            )
            yield (
                f"vault token create -orphan -no-default-policy -policy={role.policy.name} {life} "
                f"-field=token  # to {login.token}"
            )
