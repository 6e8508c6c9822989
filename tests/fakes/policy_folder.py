"""Policies in memory: texts that a test writes, made into policies in this very process."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.config import Config
from broker.config.policies import made_of
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.policy_ports import LoadedPolicies, PolicyTexts
from broker.policy.manifest import Manifest
from broker.policy.yamlfile import Faults

POLICY = """\
apiVersion: penstock.dev/v1
kind: Policy
community: default
cap: {cap}
names: {{allow: ["**.internal"]}}
challenges: [http-01]
keys: {{allow: [ec-p256]}}
profiles:
  server:
    description: servers
    usages: [server-auth]
    upstreams: [{{upstream: local}}]
default_profile: server
"""

CASES = """\
apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: a private name
    given: {{names: [app.internal], upstreams: [{{name: local, description: built-in}}]}}
    expect: {{decision: allow, cap: {cap}}}
    because: this is what it is for
"""


def policy(cap: str = "90d") -> bytes:
    """Return a policy of the default community."""
    return POLICY.format(cap=cap).encode()


def cases(cap: str = "90d") -> bytes:
    """Return cases that expect that cap."""
    return CASES.format(cap=cap).encode()


class PolicyFolder:
    """Implements ``policy_ports.PolicySource``: a directory that a test writes."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.bundle: dict[str, bytes] = {}
        self.error: Broken | Unreachable | Faults | None = None
        """What reading it gives."""
        self.is_gone = False
        self.stirred = 0
        """Differs from look to look while somebody writes."""
        self.reads = 0

    def texts(self) -> PolicyTexts:
        """Return what lies there."""
        return PolicyTexts(files=dict(self.files), bundle=dict(self.bundle))

    async def look(self) -> object:
        """Return what is to be seen."""
        if self.is_gone:
            raise Broken("policy directory /policies is not there")
        return (self.texts().set_id, self.stirred)

    async def read(self) -> PolicyTexts:
        """Return all files."""
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.texts()


class MakerHere:
    """Implements ``policy_ports.PolicyMaker`` without a child process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.error: Unreachable | None = None
        self.made = 0

    async def make(self, texts: PolicyTexts, earlier: LoadedPolicies) -> LoadedPolicies:
        """Return the policies."""
        self.made += 1
        if self.error is not None:
            raise self.error
        return made_of(self.config, texts)

    async def let_go(self, former: list[LoadedPolicies]) -> None:
        """Free a set."""
        former.clear()


def signed_folder(folder: Path) -> str:
    """Make *folder* with a policy that one person has signed; return who, as commands take it."""
    folder.mkdir()
    (folder / "default.yaml").write_bytes(policy())
    files = {"default.yaml": hashlib.sha256(policy()).hexdigest()}
    text = str(Manifest(audience="penstock", version=1, files=files)).encode()
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    (folder / "bundle.manifest").write_bytes(text)
    (folder / "bundle.anna.sig").write_bytes(key.sign(text))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"anna={base64.b64encode(spki).decode()}"
