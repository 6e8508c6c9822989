"""What lies in which file, for each layout."""

from __future__ import annotations

import pytest

from agents.config import FilesSection, Layout
from agents.layouts import LayoutFault, Material, make_plan, place_of

LEAF, ISSUER, ROOT = (
    f"-----BEGIN CERTIFICATE-----\n{one}\n-----END CERTIFICATE-----\n" for one in ("L", "I", "R")
)
KEY = b"the key\n"


def files(layout: Layout) -> FilesSection:
    """Return a section."""
    return FilesSection(layout=layout, directory="/tls/www", file="www")


def material(**changes: object) -> Material:
    """Return a pair."""
    given = {"chain_pem": LEAF + ISSUER, "key_pem": KEY, "anchors_pem": ROOT, **changes}
    return Material(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "folder", "link", "expected"),
    [
        (
            Layout.PEM,
            "/tls/www",
            "current",
            {"fullchain.pem": LEAF + ISSUER, "privkey.pem": "the key\n"},
        ),
        (
            Layout.KUBERNETES,
            "/tls/www",
            "..data",
            {"tls.crt": LEAF + ISSUER, "tls.key": "the key\n", "ca.crt": ROOT},
        ),
        (
            Layout.CERTBOT,
            "/tls/www/live/www",
            "current",
            {
                "cert.pem": LEAF,
                "chain.pem": ISSUER,
                "fullchain.pem": LEAF + ISSUER,
                "privkey.pem": "the key\n",
            },
        ),
        (Layout.COMBINED, "/tls/www", None, {"www.pem": LEAF + ISSUER + "the key\n"}),
        (Layout.PKCS12, "/tls/www", None, {"www.p12": "packed"}),
    ],
    ids=lambda one: str(one) if isinstance(one, Layout) else "",
)
def test_what_lies_where(
    layout: Layout, folder: str, link: str | None, expected: dict[str, str]
) -> None:
    """Each layout as the servers that read it want it; only files with a key are secret."""
    plan = make_plan(files(layout), material(pkcs12=b"packed"))
    assert {one.name: one.octets.decode() for one in plan.pieces} == expected
    assert (plan.folder, plan.link) == (folder, link)
    secret = {one.name for one in plan.pieces if one.is_secret}
    assert secret == {
        name for name, text in expected.items() if "the key" in text or text == "packed"
    }
    assert place_of(files(layout))[0] == folder
    assert set(place_of(files(layout))[2]) == set(expected)


def test_kubernetes_without_anchors_has_the_issuers() -> None:
    """A ca.crt is always there, and a whole system store never goes into it."""
    for anchors in (None, ROOT * 3000):
        plan = make_plan(files(Layout.KUBERNETES), material(anchors_pem=anchors))
        (found,) = [one for one in plan.pieces if one.name == "ca.crt"]
        assert found.octets.decode() == ISSUER


def test_a_key_on_a_token_is_named_by_its_uri() -> None:
    """Where the key would be lies its URI; layouts that need the key itself refuse."""
    token = material(key_pem=None, key_uri="pkcs11:token=w")
    plan = make_plan(files(Layout.PEM), token)
    assert {one.name: one.octets for one in plan.pieces}["privkey.uri"] == b"pkcs11:token=w\n"
    for layout in (Layout.COMBINED, Layout.PKCS12):
        with pytest.raises(LayoutFault, match="on a token"):
            make_plan(files(layout), token)
