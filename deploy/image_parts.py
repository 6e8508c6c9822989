"""What an image has above its base, made inside a build by the base's own Python.

``python3 image_parts.py broker|agent`` fills ``/parts``: ``root`` is laid over the base's root,
``state`` holds the folder that belongs to the image's user.  The same sources and the same base
give the same octets: nothing is dated, and modules are compiled one after the other, to be checked
against nothing.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Beside this file; the folder is no package.
from image_bill import Part, bill, debian_parts, interpreter, python_parts, wheel_hashes

SOURCES: Final = Path(__file__).resolve().parents[1]
WHEELS: Final = SOURCES / "wheels"
PARTS: Final = Path("/parts")
ROOT: Final = PARTS / "root"

BROKER: Final = Path("/opt/penstock")
"""The broker's environment; its scripts name their interpreter, so it is made where it will lie."""

BUILD: Final = Path("/opt/penstock-build")
"""The environment in which both wheels of the clone are built; it stays behind."""

BILL: Final = Path("/usr/share/penstock/bill.spdx.json")
"""Where an image has its own bill of materials."""

REPORT: Final = PARTS / "installed.json"
"""What pip tells of the packages it installed for the broker."""

AGENT: Final = Path("/opt/penstock-agent")
COMMAND: Final = Path("/usr/local/bin/penstock-agent")

LAUNCHER: Final = f'''\
#!/usr/bin/env python3
"""The agent; its modules lie in {AGENT}, compiled for this Python."""

import sys

sys.path.insert(0, "{AGENT}")

from agents.cli import main

sys.exit(main())
'''

NOT_COMPILED: Final = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "ensurepip", "turtledemo", "tkinter"}
)
"""Parts of the standard library that no program of ours imports."""


class CannotBuild(Exception):
    """The base, or what was fetched for it, lacks something; the text says what to do."""


def run(*command: str | Path, folder: Path = SOURCES) -> None:
    """Run one step, which has to succeed."""
    subprocess.run([str(part) for part in command], cwd=folder, check=True)


def pip() -> list[str]:
    """Return how pip is run: the base's own, else the one among the wheels, as it is."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = sorted(WHEELS.glob("pip-*.whl"))
    if not found:
        raise CannotBuild("the base has no pip: build by `make images` with --offline 3.11")
    return [sys.executable, str(found[-1] / "pip")]


def install(environment: Path, *wanted: str) -> None:
    """Install packages by their pins: from the wheels if there are any, else from pip's index."""
    local = ["--no-index", f"--find-links={WHEELS}"] if any(WHEELS.glob("*.whl")) else []
    quiet = [
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--root-user-action=ignore",
    ]
    run(
        *pip(),
        f"--python={environment}/bin/python",
        "install",
        *quiet,
        *local,
        "--no-compile",
        "--no-deps",
        *wanted,
    )


def pinned(name: str) -> Sequence[str]:
    """Return the arguments that ask for a whole list of requirements, each by its hash."""
    listed = str(SOURCES / "requirements" / f"{name}.txt")
    return ["--require-hashes", "--only-binary=:all:", f"--requirement={listed}"]


def make_environment(path: Path) -> None:
    """Make a virtual environment without pip; it links to the base's Python."""
    run(sys.executable, "-m", "venv", "--without-pip", path)


def make_broker() -> list[Part]:
    """Install the broker and the agent's wire vocabulary with all libraries, by hash."""
    make_environment(BUILD)
    install(BUILD, *pinned("build"))
    built = Path("/parts/wheels")
    for folder in (SOURCES / "agents", SOURCES):
        run(BUILD / "bin" / "hatchling", "build", "-t", "wheel", "-d", built, folder=folder)
    make_environment(BROKER)
    install(BROKER, *pinned("image"), f"--report={REPORT}")
    install(BROKER, *(str(wheel) for wheel in sorted(built.glob("*.whl"))))
    run(BROKER / "bin" / "penstock", "--version")
    shutil.rmtree(built)
    shutil.move(BROKER, ROOT / BROKER.relative_to("/"))
    compile_tree(ROOT / BROKER.relative_to("/"), BROKER)
    (packages,) = (ROOT / BROKER.relative_to("/") / "lib").glob("python*/site-packages")
    return list(python_parts(packages, wheel_hashes(REPORT)))


def make_agent() -> list[Part]:
    """Lay out the agent's modules, compiled, and the command that starts them."""
    if shutil.which("openssl") is None:
        raise CannotBuild("the base has no program openssl, by which the agent makes its keys")
    home = ROOT / AGENT.relative_to("/")
    package = home / "agents"
    package.mkdir(parents=True)
    for path in sorted((SOURCES / "agents").iterdir()):
        if path.suffix == ".py" or path.name in {"LICENSE", "NOTICE", "py.typed"}:
            shutil.copyfile(path, package / path.name)
    compile_tree(home, AGENT)
    command = ROOT / COMMAND.relative_to("/")
    command.parent.mkdir(parents=True)
    command.write_text(LAUNCHER, "ascii")
    command.chmod(0o755)
    return [
        Part("pypi", "penstock-agent", own_version(), f"pkg:pypi/penstock-agent@{own_version()}")
    ]


def own_version() -> str:
    """Return the version, which stands in one place alone."""
    text = (SOURCES / "agents" / "__init__.py").read_text("utf-8")
    (found,) = re.findall(r'^__version__(?:: \w+)? = "(.+)"$', text, re.MULTILINE)
    return str(found)


def write_bill(target: str, parts: Sequence[Part]) -> None:
    """Write what the image holds, its base included."""
    version = own_version()
    name = f"penstock-{target}"
    image = Part("image", name, version, f"pkg:oci/{name}@{version}", "Apache-2.0")
    written = ROOT / BILL.relative_to("/")
    written.parent.mkdir(parents=True)
    date = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    every = [interpreter(), *debian_parts(), *parts]
    written.write_text(bill(image, every, date), "ascii")


def compile_tree(folder: Path, shown: Path) -> None:
    """Compile every module below *folder*, which will be known as *shown*."""
    done = compileall.compile_dir(
        folder,
        quiet=1,
        workers=1,
        force=True,
        stripdir=str(folder),
        prependdir=str(shown),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        raise CannotBuild(f"a module below {shown} does not compile")


def compile_library() -> None:
    """Compile the standard library where the base left that out, as small ones do.

    Else each start, and each probe, would compile the same hundred modules in its own memory.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    for source in sorted(library.rglob("*.py")):
        inner = source.relative_to(library)
        cached = Path(importlib.util.cache_from_source(str(source)))
        if cached.exists() or NOT_COMPILED & set(inner.parts) or "site-packages" in inner.parts:
            continue
        if "dist-packages" in inner.parts:
            continue
        target = ROOT / cached.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        py_compile.compile(
            str(source),
            cfile=str(target),
            doraise=False,
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def main(arguments: Sequence[str]) -> int:
    """Make the parts of one image."""
    makers = {"broker": (make_broker, "penstock"), "agent": (make_agent, "penstock-agent")}
    make, state = makers[arguments[0]]
    ROOT.mkdir(parents=True)
    (PARTS / "state" / state).mkdir(parents=True, mode=0o700)
    try:
        write_bill(arguments[0], make())
        compile_library()
    except CannotBuild as error:
        sys.stderr.write(f"penstock: error: {error}\n")
        return 1
    sys.stdout.write(f"{arguments[0]}: {digest_of(ROOT)}\n")
    return 0


def digest_of(folder: Path) -> str:
    """Return one SHA-256 over all files and links below *folder*, to compare two builds by."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        whole.update(str(path.relative_to(folder)).encode() + b"\0")
        if path.is_symlink():
            whole.update(os.readlink(path).encode())
        elif path.is_file():
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
