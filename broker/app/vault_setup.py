"""What the broker needs in Vault, as values drawn from its configuration: mounts, keys, policies.

Each path is named in full.  A trailing ``*`` in a policy of Vault reaches across ``/``, and would
grant what nobody may: ``trim`` and ``config`` together with ``rotate``, or another community's key.
Nothing here speaks to Vault; ``vault_script`` writes it down for the people who do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from broker.app.checkpoint_keys import CHECKPOINT_KIND, checkpoint_key_name
from broker.app.secrets import references, split_reference
from broker.config import Config
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.config.vault import (
    AppRoleLogin,
    CertificateLogin,
    KubernetesLogin,
    Login,
    Vault,
)
from broker.issuance.errors import Broken
from broker.keys.transit_key import TYPES
from broker.keys.vault_ids import SCHEME, parse_vault_key_id

__all__ = [
    "NO",
    "KvPath",
    "Policy",
    "Role",
    "Rule",
    "Setup",
    "SetupKey",
    "plan_setup",
]

NO: Final = (False, "false")
"""What a parameter may be that must not be true: as JSON says it, and as the command line does."""

SEALING_TYPE: Final = "aes256-gcm96"
"""Type of the key under which secrets of the store are sealed."""

Value = str | bool
Who = Literal["serve", "rotate"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be done at one path."""

    path: str
    capabilities: tuple[str, ...]
    why: str
    parameters: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """The only parameters that may be given, each with its only values; none: any value.  Without
    any, every parameter may be given."""
    wrapping: tuple[str, str] | None = None
    """Shortest and longest life of the wrapping that the answer has to have."""


@dataclass(frozen=True, slots=True)
class Policy:
    """An ACL policy."""

    name: str
    title: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """Who may log in, and what that gives: a name for one of the broker's identities."""

    name: str
    who: Who
    login: Login
    policy: Policy


@dataclass(frozen=True, slots=True)
class SetupKey:
    """A transit key that is made beforehand, since the broker may not make it."""

    mount: str
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class KvPath:
    """A secret that the configuration refers to."""

    mount: str
    path: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that the broker needs in Vault."""

    vault: Vault
    transit_mounts: tuple[str, ...]
    kv_paths: tuple[KvPath, ...]
    keys: tuple[SetupKey, ...]
    roles: tuple[Role, ...]
    deliveries: tuple[Policy, ...]
    """Policies of whoever hands the broker its wrapped secret ids."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Return every policy, those of the broker first."""
        return (*(role.policy for role in self.roles), *self.deliveries)


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that signs for the broker."""

    mount: str
    name: str
    kind: str | None
    """What it is made as; None: it is there already."""
    use: str


def plan_setup(config: Config, *, with_import: bool = False, also: Sequence[str] = ()) -> Setup:
    """Return what *config* needs in Vault; *with_import* lets existing keys be brought there.

    *also* are keys, ``MOUNT/NAME``, that the configuration does not name: those that are still used
    where they were before it was changed.

    Raises:
        Broken: Vault is not configured, two identities would be one, or an additional key is none
            of this broker's.
    """
    vault = config.vault
    if vault is None:
        raise Broken("the configuration has no section 'vault', so nothing of Vault is needed")
    keys = tuple(_keys(config, vault))
    keys += tuple(_keys_besides(also, vault, keys))
    kv_paths = tuple(_kv_paths(config))
    mounts = dict.fromkeys(key.mount for key in keys)
    made = [
        SetupKey(key.mount, key.name, TYPES[key.kind])
        for key in keys
        if key.kind is not None and _rotate_login(vault, key.mount) is None
    ]
    if vault.sealing_key is not None:
        mount, _, name = vault.sealing_key.rpartition("/")
        mounts[mount] = None
        made.append(SetupKey(mount, name, SEALING_TYPE))
    roles = tuple(_roles(vault, keys, kv_paths, with_import=with_import))
    _verify_roles_differ(roles)
    return Setup(
        vault=vault,
        transit_mounts=tuple(mounts),
        kv_paths=kv_paths,
        keys=tuple(made),
        roles=roles,
        deliveries=tuple(_deliveries(roles)),
    )


# ------------------------------------------------------------------------------ what is configured


def _keys(config: Config, vault: Vault) -> Iterator[_Key]:
    for name, upstream in config.upstreams.items():
        if isinstance(upstream, AcmeUpstream):
            for community in upstream.communities:
                store = config.communities[community].key_store or upstream.account_key.store
                if store != "file":
                    yield _Key(
                        _mount_of(store),
                        f"{vault.key_prefix}.{community}.{name}",
                        upstream.account_key.kind,
                        f"account of community '{community}' at '{name}'",
                    )
        elif isinstance(upstream, BuiltinUpstream):
            for store, role in ((upstream.key_store, "issuing"), (upstream.root_key_store, "root")):
                if store != "file":
                    yield _Key(
                        _mount_of(store),
                        f"{vault.key_prefix}.{name}.{role}",
                        "ec-p256",
                        f"{role} key of the CA '{name}'",
                    )
    checkpoints = config.audit.checkpoints.key_store
    if checkpoints != "file":
        yield _Key(
            _mount_of(checkpoints),
            checkpoint_key_name(vault),
            CHECKPOINT_KIND,
            "checkpoints of the audit chain",
        )


def _keys_besides(also: Sequence[str], vault: Vault, keys: Sequence[_Key]) -> Iterator[_Key]:
    known = {f"{key.mount}/{key.name}" for key in keys}
    for key in dict.fromkeys(also):
        if key in known:
            continue
        wanted = parse_vault_key_id(f"{SCHEME}{key}#1")  # nothing with a glob in it is an id
        if not wanted.name.startswith(f"{vault.key_prefix}."):
            raise Broken(
                f"'{key}' is no key of this broker, expected MOUNT/{vault.key_prefix}.NAME"
            )
        yield _Key(wanted.mount, wanted.name, None, "still in use")


def _mount_of(store: str) -> str:
    return store.removeprefix("vault:")


def _kv_paths(config: Config) -> Iterator[KvPath]:
    """Yield each path that references name, once, with all the fields that are wanted of it."""
    fields: dict[tuple[str, str], dict[str, None]] = {}
    for reference in references(config):
        if reference.scheme == "vault":
            mount, path, name = split_reference(config, reference)
            fields.setdefault((mount, path), {})[name] = None
    for (mount, path), names in sorted(fields.items()):
        yield KvPath(mount, path, tuple(sorted(names)))


def _rotate_login(vault: Vault, mount: str) -> Login | None:
    own = vault.mounts.get(mount)
    return vault.rotate if own is None else own.rotate


def _verify_roles_differ(roles: Sequence[Role]) -> None:
    """See that nothing is written twice under one name: the second would take the first's place.

    Raises:
        Broken: Two identities would share a role, or two mounts a policy.
    """
    policies: dict[str, Role] = {}
    names: dict[tuple[str, str, str], Role] = {}
    for role in roles:
        if role.policy.name in policies:
            raise Broken(f"two mounts would share the policy '{role.policy.name}', rename one")
        policies[role.policy.name] = role
        login = role.login
        if isinstance(login, KubernetesLogin | CertificateLogin):
            other = names.setdefault((login.method, login.mount, login.role or role.name), role)
            if other is not role:
                raise Broken(
                    f"identities '{other.name}' and '{role.name}' log in as the role "
                    f"'{login.role}', give each one of its own"
                )


# -------------------------------------------------------------------------------------- policies


def _roles(
    vault: Vault, keys: Sequence[_Key], kv_paths: Sequence[KvPath], *, with_import: bool
) -> Iterator[Role]:
    yield from _pair(vault, "", keys, kv_paths, with_import=with_import)
    for mount in vault.mounts:
        yield from _pair(vault, mount, keys, kv_paths, with_import=with_import)


def _pair(
    vault: Vault, mount: str, keys: Sequence[_Key], kv_paths: Sequence[KvPath], *, with_import: bool
) -> Iterator[Role]:
    """Yield the identities of one mount, or those of all mounts that have none of their own."""

    def is_here(where: str) -> bool:
        return where == mount if mount else where not in vault.mounts

    own = vault.mounts[mount] if mount else vault
    stem = ".".join([vault.key_prefix, *filter(None, [mount.replace("/", "-").lower()])])
    at = f"at mount '{mount}'" if mount else "everywhere else"
    here = [key for key in keys if is_here(key.mount)]
    rules = [rule for key in here for rule in _signing(key)]
    sealing = vault.sealing_key
    if sealing is not None and is_here(sealing.rpartition("/")[0]):
        rules += _sealing(sealing)
    rules += [
        Rule(f"{one.mount}/data/{one.path}", ("read",), f"secret: {', '.join(one.fields)}")
        for one in kv_paths
        if is_here(one.mount)
    ]
    serve = Policy(f"{stem}.serve", f"signs and reads {at}", (*rules, *_OF_ITS_TOKEN))
    yield Role(serve.name, "serve", own.serve, serve)
    if own.rotate is None:
        return
    rules = [rule for key in here for rule in _rotating(key, with_import=with_import)]
    if with_import:
        rules += [
            Rule(f"{one}/wrapping_key", ("read",), "public key that imported keys are wrapped for")
            for one in dict.fromkeys(key.mount for key in here)
        ]
    rotate = Policy(
        f"{stem}.rotate",
        f"makes and rotates keys {at}, while that goes on",
        (*rules, *_OF_ITS_TOKEN),
    )
    yield Role(rotate.name, "rotate", own.rotate, rotate)


_OF_ITS_TOKEN: Final = (
    Rule("auth/token/lookup-self", ("read",), "how long its own token lives"),
    Rule("auth/token/renew-self", ("update",), "a longer life for its own token"),
    Rule("auth/token/revoke-self", ("update",), "the end of its own token"),
)
"""What every identity may do with its own token; Vault's policy ``default`` is not given to it."""


def _signing(key: _Key) -> Iterator[Rule]:
    yield Rule(f"{key.mount}/keys/{key.name}", ("read",), f"public key: {key.use}")
    yield Rule(
        f"{key.mount}/sign/{key.name}/+", ("update",), "signatures; the last part names the hash"
    )


def _sealing(key: str) -> Iterator[Rule]:
    mount, _, name = key.rpartition("/")
    yield Rule(f"{mount}/keys/{name}", ("read",), "which version of the sealing key is current")
    for what in ("encrypt", "decrypt"):
        yield Rule(f"{mount}/{what}/{name}", ("update",), "secrets of the store")


def _rotating(key: _Key, *, with_import: bool) -> Iterator[Rule]:
    path = f"{key.mount}/keys/{key.name}"
    types = tuple(TYPES.values())
    of_a_key: dict[str, tuple[Value, ...]] = {
        "type": types,
        "exportable": NO,
        "allow_plaintext_backup": NO,
        "derived": NO,
    }
    yield Rule(path, ("create", "update", "read"), f"the key itself: {key.use}", of_a_key)
    yield Rule(f"{path}/rotate", ("update",), "its next version")
    versions: dict[str, tuple[Value, ...]] = {
        "min_encryption_version": (),
        "min_decryption_version": (),
    }
    yield Rule(f"{path}/config", ("update",), "its earlier versions sign no more", versions)
    if with_import:
        of_import: dict[str, tuple[Value, ...]] = {
            **of_a_key,
            "ciphertext": (),
            "hash_function": (),
            "allow_rotation": (),
        }
        yield Rule(
            f"{path}/import", ("create", "update"), "an existing key, brought in wrapped", of_import
        )


def _deliveries(roles: Sequence[Role]) -> Iterator[Policy]:
    for role in roles:
        if isinstance(role.login, AppRoleLogin) and role.login.is_wrapped:
            path = f"auth/{role.login.mount}/role/{role.name}/secret-id"
            why = "a secret id, which is handed out wrapped or not at all"
            rule = Rule(path, ("update",), why, wrapping=("1s", "10m"))
            title = f"hands '{role.name}' its secret id, and cannot read it"
            yield Policy(f"{role.name}.deliver", title, (rule,))
