"""What is wrong with keys and secrets in Vault that no section can see alone.

Account keys and CA keys share neither a mount nor an identity, and no identity is another one under
a second name: whoever may do the one must not come by the other (docs/adr/0018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from broker.config.model import Config
from broker.config.upstreams import AcmeUpstream
from broker.config.values import SecretRef
from broker.config.vault import (
    AppRoleLogin,
    CertificateLogin,
    KubernetesLogin,
    Login,
    TokenLogin,
    Vault,
)
from broker.policy.yamlfile import Fault, KeyPath, Lines

__all__ = ["check_vault"]

_SCHEME: Final = "vault:"

_KINDS: Final = {
    "account": "account keys",
    "issuing": "issuing keys of a built-in CA",
    "root": "the root key of a built-in CA",
    "sealing": "the sealing key",
    "audit": "the key of the audit chain's checkpoints",
}


@dataclass(frozen=True, slots=True)
class _Use:
    """A mount, what is kept there, and where that is said."""

    mount: str
    kind: Literal["account", "issuing", "root", "sealing", "audit"]
    path: KeyPath


def check_vault(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield every fault of what is to be in Vault, with its line."""
    uses = list(_uses(config))
    if config.vault is None:
        yield from _check_absent(config, uses, lines)
        return
    yield from _check_apart(config.vault, uses, lines)
    yield from _check_identities(config.vault, lines)
    yield from _check_logins(config.vault, lines)


def _uses(config: Config) -> Iterator[_Use]:
    """Yield every use of a transit mount that the configuration asks for."""
    for name, community in config.communities.items():
        if community.key_store is not None:
            yield from _use(community.key_store, "account", ("communities", name, "key_store"))
    for name, upstream in config.upstreams.items():
        at: KeyPath = ("upstreams", name)
        if isinstance(upstream, AcmeUpstream):
            # Where every community has a place of its own nothing is kept in the upstream's.
            own = [config.communities.get(one) for one in upstream.communities]
            if all(one is not None and one.key_store is not None for one in own) and own:
                continue
            yield from _use(upstream.account_key.store, "account", (*at, "account_key", "store"))
        else:
            yield from _use(upstream.key_store, "issuing", (*at, "key_store"))
            yield from _use(upstream.root_key_store, "root", (*at, "root_key_store"))
    checkpoints = config.audit.checkpoints.key_store
    yield from _use(checkpoints, "audit", ("audit", "checkpoints", "key_store"))
    if config.vault is not None and config.vault.sealing_key is not None:
        mount = config.vault.sealing_key.rpartition("/")[0]
        yield _Use(mount, "sealing", ("vault", "sealing_key"))


def _use(
    store: str, kind: Literal["account", "issuing", "root", "audit"], path: KeyPath
) -> Iterator[_Use]:
    if store.startswith(_SCHEME):
        yield _Use(store.removeprefix(_SCHEME), kind, path)


def _check_absent(config: Config, uses: list[_Use], lines: Lines) -> Iterator[Fault]:
    hint = "add the section vault, with its addresses and who the broker is there"
    for use in uses:
        yield lines.fault(use.path, "keys are to be in Vault, and no Vault is configured", hint)
    for path, reference in _references(config, ()):
        if reference.scheme == "vault":
            yield lines.fault(
                path, f"secret {reference} lies in Vault, and no Vault is configured", hint
            )


def _check_apart(vault: Vault, uses: list[_Use], lines: Lines) -> Iterator[Fault]:
    """Find mounts that keep what has to be apart, and CA mounts without an identity."""
    kinds: dict[str, set[str]] = {}
    for use in uses:
        kinds.setdefault(use.mount, set()).add(use.kind)
    for use in uses:
        if use.kind not in ("issuing", "root"):
            continue
        others = sorted(kinds[use.mount] - {use.kind})
        if others:
            also = " and ".join(_KINDS[one] for one in others)
            yield lines.fault(
                use.path,
                f"mount '{use.mount}' would keep {_KINDS[use.kind]} beside {also}",
                "give each a mount of its own",
            )
        if use.mount not in vault.mounts:
            yield lines.fault(
                use.path,
                f"mount '{use.mount}' keeps {_KINDS[use.kind]}, and nobody but the identity of "
                "account keys is configured there",
                f"add vault.mounts.{use.mount} with an identity of its own",
            )


def _check_identities(vault: Vault, lines: Lines) -> Iterator[Fault]:
    """Find two identities that log in as one and the same: each could do what the other may."""
    seen: dict[tuple[str, ...], KeyPath] = {}
    for path, login in _logins(vault):
        first = seen.setdefault(_who(login), path)
        if first != path:
            yield lines.fault(
                path,
                f"logs in as the same as {'.'.join(map(str, first))}",
                "have the security team make a role of its own, see penstock vault setup --print",
            )


def _check_logins(vault: Vault, lines: Lines) -> Iterator[Fault]:
    """Find a login that would need Vault to get into Vault."""
    for path, login in _logins(vault):
        for at, reference in _references(login, path):
            if reference.scheme == "vault":
                yield lines.fault(
                    at,
                    f"secret {reference} lies in Vault, and is what Vault is entered with",
                    "expected 'file:' or 'env:'",
                )


def _logins(vault: Vault) -> Iterator[tuple[KeyPath, Login]]:
    yield ("vault", "serve"), vault.serve
    if vault.rotate is not None:
        yield ("vault", "rotate"), vault.rotate
    for mount, own in vault.mounts.items():
        yield ("vault", "mounts", mount, "serve"), own.serve
        if own.rotate is not None:
            yield ("vault", "mounts", mount, "rotate"), own.rotate


def _who(login: Login) -> tuple[str, ...]:
    """Return what tells one identity from another, as far as it stands in the configuration."""
    match login:
        case TokenLogin():
            return (login.method, str(login.token))
        case AppRoleLogin():
            return (login.method, login.mount, str(login.role_id))
        case KubernetesLogin():
            return (login.method, login.mount, login.role, str(login.token_file))
        case CertificateLogin():
            return (login.method, login.mount, login.role or "", str(login.certificate))


def _references(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, SecretRef]]:
    """Yield every reference to a secret below *value*, with where it stands."""
    match value:
        case SecretRef():
            yield path, value
        case BaseModel():
            for name in type(value).model_fields:
                yield from _references(getattr(value, name), (*path, name))
        case Mapping():
            for name, each in value.items():
                yield from _references(each, (*path, name))
        case tuple():
            for place, each in enumerate(value):
                yield from _references(each, (*path, place))
