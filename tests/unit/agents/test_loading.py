"""The configuration file, checked whole."""

from datetime import timedelta
from pathlib import Path

import pytest

from agents.config import (
    Absent,
    AgentConfig,
    Authentication,
    BundleContent,
    ConfigFault,
    KeyKind,
    Layout,
    StartTls,
)
from agents.loading import read_config

HEAD = """
[node]
name = "web.example.test"
allowed = ["/etc/ssl/own", "/srv"]
[broker]
url = "https://broker.example.test:8444/"
anchors = "/etc/penstock/broker.pem"
[enrol]
method = "token"
credential = "file:join"
"""

CERTIFICATE = """
[[certificate]]
name = "www"
names = ["*.example.test", "www.example.test"]
profile = "server"
[certificate.key]
kind = "rsa-3072"
keep_previous = "30d"
[certificate.files]
layout = "kubernetes"
directory = "/srv/www"
owner = "www-data"
mode = "0640"
[certificate.reload]
signal = "SIGHUP"
process = "nginx"
pid_file = "/run/nginx.pid"
absent = "pass"
check = ["/usr/sbin/nginx", "-t"]
[certificate.look]
connect = "127.0.0.1:25"
starttls = "smtp"
first = "pass"
[certificate.expects]
anchors = "/etc/penstock/web.pem"
longest = "90d"
"""


def read(tmp_path: Path, text: str, **included: str) -> AgentConfig:
    """Return what such files say."""
    (tmp_path / "agent.toml").write_text(text)
    (tmp_path / "agent.d").mkdir(exist_ok=True)
    for name, more in included.items():
        (tmp_path / "agent.d" / f"{name}.toml").write_text(more)
    return read_config(str(tmp_path / "agent.toml"))


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Every section, each key by its type."""
    config = read(tmp_path, HEAD + CERTIFICATE)
    (one,) = config.certificates
    assert config.broker.url == "https://broker.example.test:8444"
    assert config.broker.authentication is Authentication.TLS
    assert config.node.metrics == "127.0.0.1:9406"
    assert (one.key.kind, one.key.keep_previous) == (KeyKind.RSA_3072, timedelta(days=30))
    assert one.files is not None
    assert (one.files.layout, one.files.mode) == (Layout.KUBERNETES, 0o640)
    assert one.reload.signal == "HUP"
    assert one.look is not None
    assert (one.look.starttls, one.look.server_name) == (StartTls.SMTP, "www.example.test")
    assert (one.look.first, one.reload.absent) == (Absent.PASS, Absent.PASS)
    assert one.expects.longest == timedelta(days=90)


def test_files_of_the_folder_beside_it_are_read_too(tmp_path: Path) -> None:
    """A host of 5,000 certificates has one for each owner."""
    bundle = '[[bundle]]\nname = "crls"\nfile = "/srv/crls.pem"\ncontent = "crls"\n'
    config = read(tmp_path, HEAD, a=CERTIFICATE, b=bundle)
    assert [one.name for one in config.certificates] == ["www"]
    assert config.bundles[0].content is BundleContent.CRLS


def test_a_device_needs_no_files(tmp_path: Path) -> None:
    """Its driver keeps them."""
    text = HEAD + (
        '[[certificate]]\nname = "bmc"\nnames = ["bmc.example.test"]\n'
        '[certificate.driver]\ncommand = ["/usr/lib/bmc"]\n'
        '[certificate.expects]\nanchors = "/etc/penstock/web.pem"\n'
    )
    assert read(tmp_path, text).certificates[0].files is None


def test_a_cluster_may_name_the_node(tmp_path: Path) -> None:
    """Its token says which it is; with any other method the name is needed."""
    text = HEAD.replace('name = "web.example.test"\n', "")
    with pytest.raises(ConfigFault, match=r"node\.name: is missing"):
        read(tmp_path, text)
    assert read(tmp_path, text.replace('"token"', '"kubernetes"')).node.name == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"web.example.test"', '"Web"', "lower-case DNS labels"),
        ('"/etc/ssl/own", "/srv"', '"relative"', "no absolute path of a folder"),
        ('"/etc/ssl/own", "/srv"', '"/"', "no absolute path of a folder"),
        ("https://broker", "http://broker", "begins with https"),
        ("https://broker", "https://user@broker", "begins with https"),
        ('method = "token"', 'method = "magic"', "none of token"),
        ('credential = "file:join"', "", "method token needs it"),
        ('credential = "file:join"', 'credential = "s3cret"', "is no reference"),
        ('method = "token"', 'method = "certificate"', "enrol.certificate: is missing"),
        ('anchors = "/etc/penstock/broker.pem"', "", "broker.anchors: is missing"),
        ('name = "www"', 'name = "../www"', "is not made of letters"),
        ('"*.example.test", "www', '"Www', "no lower-case DNS name"),
        ('"*.example.test"', '"www.example.test"', "a name twice"),
        ("rsa-3072", "rsa-1024", "none of ec-p256"),
        ('"30d"', '"30"', "no duration"),
        ('directory = "/srv/www"', 'directory = "/etc/cron.d"', "none of the folders"),
        ('directory = "/srv/www"', 'directory = "/srvwww"', "none of the folders"),
        ('directory = "/srv/www"', 'directory = "/srv/../etc"', "no absolute path"),
        ('directory = "/srv/www"', 'directory = "/srv/a b"', "directory is told to a program"),
        ('mode = "0640"', 'mode = "0644"', "lets everybody read"),
        ('layout = "kubernetes"', 'layout = "pkcs12"', "PKCS#12 needs it"),
        ('signal = "SIGHUP"', 'signal = "SIGNOPE"', "is no signal"),
        ('signal = "SIGHUP"', 'signal = "HUP"\nsystemd = "x.service"', "more than one of"),
        ('process = "nginx"\n', "", "needs the program"),
        ('"/usr/sbin/nginx"', '"nginx"', "no absolute path of a program"),
        ('"127.0.0.1:25"', '"127.0.0.1"', "is no HOST:PORT"),
        ('"127.0.0.1:25"', '"127.0.0.1:99999"', "is no HOST:PORT"),
        ('anchors = "/etc/penstock/web.pem"', 'anchors = ""', "expects.anchors: is empty"),
        ('anchors = "/etc/penstock/web.pem"', 'anchors = "web.pem"', "no absolute path"),
        ('anchors = "/etc/penstock/web.pem"', 'anchors = "none"', "no absolute path"),
        ('anchors = "/etc/penstock/web.pem"', 'anchor = "unchecked"', "did you mean 'anchors'"),
        ('profile = "server"', 'profil = "server"', "did you mean 'profile'"),
        ('profile = "server"', "profile = ", "is not TOML"),
    ],
)  # fmt: skip
def test_each_fault_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    """With what is expected; the file without the fault is fine."""
    text = HEAD + CERTIFICATE
    assert old in text
    read(tmp_path, text)
    with pytest.raises(ConfigFault) as raised:
        read(tmp_path, text.replace(old, new, 1))
    assert said in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "old",
    [
        '[certificate.expects]\nanchors = "/etc/penstock/web.pem"\nlongest = "90d"\n',
        'anchors = "/etc/penstock/web.pem"\n',
    ],
    ids=["section", "key"],
)
def test_what_a_certificate_may_come_from_has_to_be_said(tmp_path: Path, old: str) -> None:
    """A file that says nothing is refused, with the place, the key and what to do."""
    text = HEAD + CERTIFICATE
    assert read(tmp_path, text).certificates[0].expects.anchors == "/etc/penstock/web.pem"
    with pytest.raises(ConfigFault) as raised:
        read(tmp_path, HEAD, www=CERTIFICATE.replace(old, ""))
    (fault,) = raised.value.faults
    place = f"{tmp_path}/agent.d/www.toml: certificate[www].expects.anchors: "
    assert fault == (
        f"{place}is missing; name the PEM file of the CAs that this certificate may come from,"
        " or say 'unchecked' to take it from any"
    )


def test_whoever_says_so_takes_a_certificate_from_any_ca(tmp_path: Path) -> None:
    """By a word that nobody writes without meaning it."""
    text = HEAD + CERTIFICATE.replace('"/etc/penstock/web.pem"', '"unchecked"')
    assert read(tmp_path, text).certificates[0].expects.anchors is None


def test_two_certificates_never_have_one_place_or_one_name(tmp_path: Path) -> None:
    """They would overwrite each other for ever."""
    with pytest.raises(ConfigFault) as raised:
        read(tmp_path, HEAD + CERTIFICATE + CERTIFICATE)
    assert "is there twice" in str(raised.value)
    assert "has the place of 'www' too" in str(raised.value)


def test_a_bundle_lies_where_the_node_allows_it(tmp_path: Path) -> None:
    """And into the system's store go anchors alone, for those who say so."""
    text = HEAD + '[[bundle]]\nname = "b"\nfile = "{}"\nsystem = true\ncontent = "{}"\n'
    with pytest.raises(ConfigFault, match="none of the folders"):
        read(tmp_path, text.format("/usr/local/share/x.pem", "anchors"))
    with pytest.raises(ConfigFault, match="for anchors alone"):
        read(tmp_path, text.format("/srv/x.pem", "crls"))
    assert read(tmp_path, text.format("/srv/x.pem", "anchors")).bundles[0].system


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[challenges]\nwebroot = "/var/www"\n', "challenges.webroot: '/var/www' is in none"),
        ('[challenges]\nhttp = "80"\n', "is no HOST:PORT"),
        (
            '[[bundle]]\nname = "crls"\nfile = "/srv/x.pem"\ncontent = "crls"\nsystem = true\n',
            "system: is for anchors alone",
        ),
        ('[[bundle]]\nname = "a"\nfile = "/etc/x.pem"\nsystem = true\n', "is in none"),
    ],
)
def test_challenges_and_bundles_are_checked(tmp_path: Path, more: str, said: str) -> None:
    """Answers and bundles lie in allowed folders, and only anchors go into the system's store."""
    with pytest.raises(ConfigFault, match=said):
        read(tmp_path, HEAD + more)
    good = '[challenges]\nwebroot = "/srv/www"\n[[bundle]]\nname = "a"\nfile = "/srv/a.pem"\n'
    assert not read(tmp_path, HEAD + good).challenges.is_off
