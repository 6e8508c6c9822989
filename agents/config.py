"""The node's own configuration, as values.

Which files are written, who owns them, what is reloaded and looked at stands here and nowhere else:
nothing that comes from the broker can name a path, a program or a user.  Secrets are references
(``file:``, ``env:``), never values.  ``agents.loading`` reads the file; what it returns has been
checked whole.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from agents.reading import ConfigFault

__all__ = [
    "DEFAULT_PATH",
    "UNCHECKED",
    "Absent",
    "AgentConfig",
    "Authentication",
    "BrokerSection",
    "BundleContent",
    "BundleSection",
    "CertificateSection",
    "ChallengesSection",
    "ConfigFault",
    "DriverSection",
    "EnrolMethod",
    "EnrolSection",
    "ExpectsSection",
    "FilesSection",
    "KeyKind",
    "KeySection",
    "Layout",
    "LookSection",
    "NodeSection",
    "ReloadSection",
    "StartTls",
    "load",
]

DEFAULT_PATH: Final = "/etc/penstock/agent.toml"
"""Where the configuration is looked for when nothing is said."""

UNCHECKED: Final = "unchecked"
"""What stands in place of a certificate's anchors where it may come from any CA."""


class Authentication(StrEnum):
    """How the broker knows the node: by its TLS client certificate, or by signed requests where a
    load balancer ends TLS."""

    TLS = "tls"
    SIGNED = "signed"


class EnrolMethod(StrEnum):
    """How the node shows who it is when it comes for the first time."""

    TOKEN = "token"
    KUBERNETES = "kubernetes"
    CERTIFICATE = "certificate"
    APPROVAL = "approval"


class KeyKind(StrEnum):
    """Which key is made; the words are those of the channel's ``key_kind``."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class Layout(StrEnum):
    """How key and chain lie in files.

    PEM: ``fullchain.pem`` and ``privkey.pem``.  KUBERNETES: ``tls.crt``, ``tls.key``, ``ca.crt``
    below a symlink that is swapped.  COMBINED: one file with key and chain.  PKCS12: one ``.p12``.
    CERTBOT: ``live/NAME/`` with the names that certbot has there, each a symlink through
    ``current``.
    """

    PEM = "pem"
    KUBERNETES = "kubernetes"
    COMBINED = "combined"
    PKCS12 = "pkcs12"
    CERTBOT = "certbot"


class StartTls(StrEnum):
    """Which protocol is spoken before TLS begins."""

    SMTP = "smtp"
    IMAP = "imap"
    LDAP = "ldap"


class Absent(StrEnum):
    """What it means that a server is not there to take up or to show a certificate: a fault, or
    nothing, where it is started after its certificate."""

    FAIL = "fail"
    PASS = "pass"


class BundleContent(StrEnum):
    """What a bundle holds."""

    ANCHORS = "anchors"
    CRLS = "crls"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSection:
    """``[node]``: the host itself."""

    name: str
    """Lower-case DNS labels; what people and rules at the broker call it.  Empty: what the cluster
    that vouches for it says."""
    state: str = "/var/lib/penstock-agent"
    """Where the agent keeps its identity, its keys and what it must not forget."""
    allowed: tuple[str, ...] = ()
    """Directories below which files may be written."""
    metrics: str | None = "127.0.0.1:9406"
    """Where metrics and readiness are served; None: nowhere."""
    workers: int = 4
    """Most deliveries that are under way at once; those that reload the same target never are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSection:
    """``[broker]``: whom it speaks to."""

    url: str
    """Begins with https and has no path of its own, or one that a load balancer wants."""
    anchors: str
    """PEM file of what the broker's certificate has to chain to; ``system``: the host's store."""
    proxy: str | None = None
    """``http://HOST:PORT`` that is asked to CONNECT; None: what HTTPS_PROXY and NO_PROXY say."""
    authentication: Authentication = Authentication.TLS
    """`signed` where a load balancer ends TLS: each request is signed by the identity's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolSection:
    """``[enrol]``: how it is let in."""

    method: EnrolMethod
    """Which of the four ways."""
    credential: str | None = None
    """``file:PATH`` or ``env:NAME``, read each time it is needed."""
    certificate: str | None = None
    """PEM chain of the client certificate to enrol by."""
    key: str | None = None
    """PEM file of its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySection:
    """``[certificate.key]``."""

    kind: KeyKind = KeyKind.EC_P256
    """What is made; policy at the broker has to allow it."""
    store: str = "file"
    """``file``, or the ``pkcs11:`` URI of a key on a token (RFC 7512)."""
    keep_previous: timedelta = timedelta(0)
    """How long the previous key is kept at least; the broker may ask for longer."""
    seal_to: str | None = None
    """PEM file of the certificate that a decryption key is sealed to before its first use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSection:
    """``[certificate.files]``."""

    layout: Layout = Layout.PEM
    """How key and chain lie in files."""
    directory: str
    """Below one of the directories that the node allows."""
    file: str
    """Name without ending for a layout of one file; else the certificate's name."""
    owner: str | None = None
    """User that the files belong to; without it, whom the agent runs as."""
    group: str | None = None
    """Group of the files; without it, the owner's."""
    mode: int = 0o600
    """Of what holds a key; files with certificates alone are also readable by everybody."""
    password: str | None = None
    """``file:PATH`` or ``env:NAME`` of the password of a PKCS#12 file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadSection:
    """``[certificate.reload]``: one of signal, command and systemd; none: nothing is done."""

    signal: str | None = None
    """Name without SIG, as ``HUP``."""
    pid_file: str | None = None
    """File with the process id, for a program of which several run."""
    process: str | None = None
    """The program to signal: its path, or the name of its file; what a pid file names has to run
    it too."""
    user: str | None = None
    """Whom the process has to belong to; None: root or the agent's own user."""
    command: tuple[str, ...] = ()
    """Argument list; never a shell."""
    systemd: str | None = None
    """Unit to reload."""
    timeout: timedelta = timedelta(seconds=30)
    """For the check, and for the command or the unit."""
    check: tuple[str, ...] = ()
    """Argument list that has to succeed before the reload, as ``nginx -t``."""
    absent: Absent = Absent.FAIL
    """What it means that no process runs the program to signal: `pass` where it is started once its
    certificate is there, as in a pod."""

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is reloaded."""
        return not (self.signal or self.command or self.systemd)

    @property
    def target(self) -> str | None:
        """Return what names the thing reloaded, the same for all that share it; None: nothing."""
        if self.signal:
            return f"signal {self.signal} {self.pid_file or self.process}"
        if self.command:
            return "command " + "\x1f".join(self.command)
        return f"systemd {self.systemd}" if self.systemd else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookSection:
    """``[certificate.look]``: where the server is asked which certificate it serves."""

    host: str
    port: int
    server_name: str | None
    """Sent as SNI: the first name that is no wildcard, unless another is given; None: nothing."""
    starttls: StartTls | None = None
    """What is spoken before TLS begins."""
    attempts: int = 10
    """How often it looks before it puts the old pair back."""
    timeout: timedelta = timedelta(seconds=30)
    """For all attempts together."""
    first: Absent = Absent.FAIL
    """What it means that nobody serves the first certificate of all: with `pass` nobody looks at
    that one, since the server is started once it is there."""

    @property
    def connect(self) -> str:
        """Return ``HOST:PORT``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectsSection:
    """``[certificate.expects]``: what the node itself holds a certificate to."""

    # No default: whoever configures a node has to say it.  None stands for UNCHECKED.
    anchors: str | None
    """PEM file of the CAs that it may come from. `unchecked`: signatures are verified within its
    chain alone, whoever the last of them is by."""
    longest: timedelta | None = None
    """Longest lifetime that is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSection:
    """``[certificate.driver]``: the program that speaks to a device which cannot run an agent."""

    command: tuple[str, ...]
    """Argument list of the program; it is spoken to in JSON on standard input and output."""
    timeout: timedelta = timedelta(minutes=5)
    """For each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSection:
    """``[[certificate]]``: one certificate that the node wants."""

    name: str
    """Letters, digits, dots, dashes and underscores; unique on the node."""
    names: tuple[str, ...]
    """What it is for: DNS names, addresses."""
    profile: str | None = None
    """Profile of the community's policy; without it, the policy's own choice."""
    key: KeySection = field(default_factory=KeySection)
    """Which key is made, and where it is kept."""
    files: FilesSection | None
    """Where key and chain are written; a device has its own, by a driver."""
    reload: ReloadSection = field(default_factory=ReloadSection)
    """What makes the server take up the new pair."""
    look: LookSection | None = None
    """Where it is seen whether the server serves it; without it nobody looks."""
    expects: ExpectsSection
    """What the certificate is held to here; required."""
    driver: DriverSection | None = None
    """For a device that cannot run an agent, instead of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSection:
    """``[[bundle]]``: trust anchors or revocation lists that the broker sends, in one PEM file."""

    name: str
    """Which bundle of the broker's it is: `anchors` or `crls`."""
    file: str
    """PEM file that is written, below one of the allowed directories."""
    content: BundleContent = BundleContent.ANCHORS
    """What it has to hold; another content is refused."""
    system: bool = False
    """Whether its anchors are put into the system's own store as well; else never."""
    reload: ReloadSection = field(default_factory=ReloadSection)
    """What takes up the new file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengesSection:
    """``[challenges]``: where challenges are answered on the node, as ``HOST:PORT``."""

    http: str | None = None
    """For http-01: `0.0.0.0:80`."""
    tls_alpn: str | None = None
    """For tls-alpn-01: `0.0.0.0:443`."""
    webroot: str | None = None
    """Folder that a server on this node serves at port 80; answers to http-01 are written below it.
    """

    @property
    def is_off(self) -> bool:
        """Whether none is answered."""
        return self.http is None and self.tls_alpn is None and self.webroot is None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """All of it."""

    node: NodeSection
    broker: BrokerSection
    enrol: EnrolSection
    certificates: tuple[CertificateSection, ...] = ()
    bundles: tuple[BundleSection, ...] = ()
    challenges: ChallengesSection = field(default_factory=ChallengesSection)

    def certificate(self, name: str) -> CertificateSection | None:
        """Return the certificate of that name."""
        return next((one for one in self.certificates if one.name == name), None)

    def bundle(self, name: str) -> BundleSection | None:
        """Return the bundle of that name."""
        return next((one for one in self.bundles if one.name == name), None)


def load(path: str) -> AgentConfig:
    """Return what the file says, with the files of ``agent.d`` beside it, or what the variable of
    the environment says that *path* names as ``env:NAME``.

    Raises:
        ConfigFault: All that is wrong, each with file and key; nothing of it is to be used.
    """
    from agents.loading import read_config

    try:
        return read_config(path)
    finally:
        # Needed at start and reload alone: what they took is used again.
        for name in (
            "agents.loading",
            "agents.sources",
            "tomllib",
            "tomllib._parser",
            "tomllib._re",
        ):
            sys.modules.pop(name, None)
