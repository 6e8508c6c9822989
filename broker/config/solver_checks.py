"""What is wrong with solvers that no section can see alone: listeners, providers, their options."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from broker.config import dns_providers
from broker.config.model import Config
from broker.config.solvers import Provider, ProviderSolver, TlsAlpnSolver
from broker.config.upstreams import AcmeUpstream
from broker.policy.yamlfile import Fault, KeyPath, Lines

__all__ = ["check_solvers"]


def check_solvers(config: Config, lines: Lines) -> Iterator[Fault]:
    """Yield every fault of the solvers, with its line."""
    for name, upstream in config.upstreams.items():
        if not isinstance(upstream, AcmeUpstream):
            continue
        for place, solver in enumerate(upstream.solvers):
            path: KeyPath = ("upstreams", name, "solvers", place)
            if isinstance(solver, ProviderSolver):
                yield from _check_provider(solver.provider, lines, (*path, "provider"))
            elif isinstance(solver, TlsAlpnSolver) and config.listen.tls_alpn is None:
                yield lines.fault(
                    path,
                    f"upstream '{name}' has its tls-alpn-01 challenges answered at the listener "
                    "tls_alpn, which is missing",
                    "add listen.tls_alpn",
                )


def _check_provider(provider: Provider, lines: Lines, path: KeyPath) -> Iterator[Fault]:
    known = dns_providers.names()
    if not known:
        yield lines.fault(
            path,
            "the library that knows DNS providers is not installed",
            "install penstock[dns]",
        )
        return
    if provider.name not in known:
        yield lines.fault(
            (*path, "name"),
            f"no DNS provider is called '{provider.name}'",
            _near(provider.name, known),
        )
        return
    missing = dns_providers.missing_packages(provider.name)
    if missing:
        yield lines.fault(
            (*path, "name"),
            f"DNS provider '{provider.name}' needs packages that are not installed",
            f"install {', '.join(missing)}",
        )
    options = dns_providers.options_of(provider.name)
    for part in ("options", "secrets"):
        for option in getattr(provider, part):
            if option.replace("-", "_") not in options:
                yield lines.fault(
                    (*path, part, option),
                    f"DNS provider '{provider.name}' has no option '{option}'",
                    _near(option, sorted(options)),
                )


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    shown = ", ".join(known[:12])
    return f"known here: {shown}{' …' if len(known) > 12 else ''}" if known else "there is none"
