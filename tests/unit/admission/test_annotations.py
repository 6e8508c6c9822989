"""What annotations ask for."""

from collections.abc import Mapping

import pytest

from broker.admission.annotations import (
    ASKED,
    DEFAULT_PATH,
    Reload,
    Wanted,
    is_asking,
    parse_wanted,
)
from broker.admission.denials import Denied, Malformed
from tests.fakes.pods import PREFIX


def wanted(given: Mapping[str, str]) -> Wanted:
    """Return what annotations want; *given* is without the prefix."""
    return parse_wanted({f"{PREFIX}/{name}": value for name, value in given.items()}, PREFIX)


def test_a_pod_that_only_asks_gets_what_is_usual() -> None:
    """Names that policy gives it, at the usual place, in the layout of mounted secrets."""
    found = wanted({"inject": "true"})
    assert found == Wanted()
    assert (found.path, found.layout, found.key) == (DEFAULT_PATH, "kubernetes", "ec-p256")


def test_everything_can_be_said() -> None:
    """Each annotation that there is; those of other programs are not looked at."""
    found = parse_wanted(
        {
            "penstock.dev/inject": "true",
            "penstock.dev/names": "web.shop.svc, *.shop.example,10.0.0.1,web.shop.svc",
            "penstock.dev/profile": "server",
            "penstock.dev/path": "/etc/nginx/tls",
            "penstock.dev/layout": "pem",
            "penstock.dev/reload": "signal:HUP:/usr/sbin/nginx",
            "penstock.dev/user": "101",
            "penstock.dev/containers": "nginx,exporter",
            "penstock.dev/look": "127.0.0.1:8443",
            "penstock.dev/key": "rsa-3072",
            "penstock.dev/status": "injected",
            "penstock.dev/agent-version": "0.1.0",
            "other.penstock.dev/names": "x",
            "penstock.dev": "x",
            "prometheus.io/scrape": "true",
        },
        PREFIX,
    )
    assert found == Wanted(
        names=("web.shop.svc", "*.shop.example", "10.0.0.1"),
        profile="server",
        path="/etc/nginx/tls",
        layout="pem",
        reload=Reload("HUP", "/usr/sbin/nginx"),
        user=101,
        containers=("nginx", "exporter"),
        look="127.0.0.1:8443",
        key="rsa-3072",
    )


@pytest.mark.parametrize(("value", "is_asked"), [(None, False), ("false", False), ("true", True)])
def test_a_pod_asks_or_does_not(value: str | None, is_asked: bool) -> None:
    """Yes, no, or nothing."""
    given = {} if value is None else {f"{PREFIX}/inject": value}
    assert is_asking(given, PREFIX) is is_asked


@pytest.mark.parametrize("value", ["", "True", "yes", "1", "true "])
def test_a_pod_that_nearly_asks_is_refused(value: str) -> None:
    """It would start without what its owner thinks that it has."""
    with pytest.raises(Denied, match=r"'penstock.dev/inject' is .* expected 'true' or 'false'"):
        is_asking({f"{PREFIX}/inject": value}, PREFIX)


NASTY = [
    'a"b', "a'b", "a\nb", "a\r\n[reload]", "a\x00b", "$(id)", "`id`", "${HOME}", "$(PATH)",
    "a b", "a;b", "a|b", "a&b", "a\\b", "a\u202eb", "\ud800", "é", "a" * 5_000, "\t", '"""', "#",
]  # fmt: skip
"""What somebody would write who hopes that it is read as something else."""


@pytest.mark.parametrize("value", NASTY, ids=[ascii(one)[:20] for one in NASTY])
@pytest.mark.parametrize("word", sorted(set(ASKED) - {"inject"}))
def test_nothing_but_the_expected_form_is_taken(word: str, value: str) -> None:
    """Of any annotation, by itself or within what is good."""
    good = {
        "names": "web.shop.svc,{}", "path": "/tls/{}", "reload": "signal:HUP:/usr/sbin/{}",
        "containers": "web,{}", "look": "{}:443",
    }.get(word, "{}")  # fmt: skip
    for text in (value, good.format(value)):
        with pytest.raises(Denied) as refused:
            wanted({word: text})
        assert f"annotation '{PREFIX}/{word}'" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "value", "said"),
    [
        ("names", "Web.shop.svc", "DNS names in lower case"),
        ("names", "a.test,,b.test", "a comma with nothing beside it"),
        ("names", ",".join(f"n{n}.test" for n in range(101)), "the limit is 100"),
        ("names", "-a.test", "DNS names"),
        ("names", "a.*.test", "DNS names"),
        ("path", "tls", "an absolute path without dots"),
        ("path", "/a/../etc", "an absolute path without dots"),
        ("path", "/a/./b", "an absolute path without dots"),
        ("path", "/", "an absolute path"),
        ("path", "/a//b", "an absolute path"),
        ("path", "/a/", "an absolute path"),
        ("path", "/etc", "would hide what the container needs"),
        ("path", "/proc/self", "would hide what the container needs"),
        ("path", "/dev", "would hide what the container needs"),
        ("layout", "pkcs12", "expected one of kubernetes, pem, combined"),
        ("layout", "PEM", "expected one of"),
        ("reload", "HUP", "expected 'none' or a signal"),
        ("reload", "command:/bin/sh", "expected 'none' or a signal"),
        ("reload", "signal:KILL:nginx", "expected 'none' or a signal"),
        ("reload", "signal:HUP", "expected 'none' or a signal"),
        ("reload", "signal:HUP:/usr/../sh", "expected 'none' or a signal"),
        ("user", "0", "which is not root's"),
        ("user", "nginx", "expected the number"),
        ("user", "-1", "expected the number"),
        ("user", "4294967295", "expected the number"),
        ("user", "\u0661", "expected the number"),
        ("look", "8443", "expected host and port"),
        ("look", "https://x:1", "expected host and port"),
        ("key", "ed25519", "expected one of ec-p256"),
        ("profile", "-server", "the name of a profile"),
        ("containers", "Web", "expected names of containers"),
    ],
)
def test_each_value_that_does_not_fit_has_its_sentence(word: str, value: str, said: str) -> None:
    """Which annotation, what stands there, and what is expected."""
    with pytest.raises(Denied, match=said):
        wanted({word: value})


def test_a_misspelt_annotation_is_refused() -> None:
    """With what was meant; one that is like nothing, with all that there are."""
    with pytest.raises(Denied, match=r"'penstock.dev/nmaes' is not known: did you mean 'names'"):
        wanted({"nmaes": "a.test"})
    with pytest.raises(Denied, match=r"known are inject, names, profile"):
        wanted({"xyzzy": "a.test"})


def test_an_annotation_that_is_no_text_is_no_api_servers() -> None:
    """They are texts in the API."""
    with pytest.raises(Malformed):
        parse_wanted({f"{PREFIX}/user": 5}, PREFIX)
