"""Build both images, alike each time, with labels and a bill of materials: ``make images``.

Any of buildah, podman and docker will do.  Standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
WHEELS: Final = REPOSITORY / "build" / "wheels"
TARGETS: Final = ("broker", "agent")
ENGINES: Final = ("buildah", "podman", "docker")

LISTS: Final = ("image", "build", "pip")
"""Lists of requirements that a build without a network needs as wheels."""

BILL: Final = "usr/share/penstock/bill.spdx.json"
"""Where an image has its own bill of materials."""


class CannotBuild(Exception):
    """An image could not be made; the text says what happened, the hint what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to build, and by what."""

    engine: Sequence[str]
    """The engine's command with its own options."""

    options: Sequence[str]
    """More options of its command ``build``."""

    base: str | None
    prefix: str
    tag: str
    archives: Path | None

    @property
    def program(self) -> str:
        """Which of the engines it is."""
        return Path(self.engine[0]).name

    def name(self, target: str) -> str:
        """Return an image's whole name."""
        return f"{self.prefix}{target}:{self.tag}"


def run(command: Sequence[str | Path], hint: str, **more: str) -> str:
    """Run one step and return its standard output; what it says besides is shown as it comes."""
    words = [str(part) for part in command]
    try:
        done = subprocess.run(
            words, cwd=REPOSITORY, env={**os.environ, **more}, stdout=subprocess.PIPE, check=False
        )
    except OSError as error:
        raise CannotBuild(f"{words[0]}: {error.strerror}", hint) from error
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace")[-2000:]
        raise CannotBuild(
            f"{shlex.join(words)} ended with {done.returncode}\n{said}".rstrip(), hint
        )
    return done.stdout.decode()


def version() -> str:
    """Return the version, which stands in one place alone."""
    text = (REPOSITORY / "agents" / "__init__.py").read_text("utf-8")
    (found,) = re.findall(r'^__version__(?:: \w+)? = "(.+)"$', text, re.MULTILINE)
    return str(found)


def of_commit(form: str, otherwise: str) -> str:
    """Return what git tells of the commit that is checked out."""
    asked = ["git", "-C", str(REPOSITORY), "log", "-1", f"--format={form}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return otherwise
    return done.stdout.strip() or otherwise


def source_date() -> str:
    """Return the one time that everything in the images is dated, in seconds since 1970."""
    return os.environ.get("SOURCE_DATE_EPOCH") or of_commit("%ct", "0")


def fetch_wheels(python: str) -> None:
    """Bring every package of the images here, checked by hash, for the base's Python.

    Which of two pins of a package its Python wants is decided in the build; here both are fetched.
    """
    shutil.rmtree(WHEELS, ignore_errors=True)
    for entries in rounds([entry for name in LISTS for entry in pins(name)]):
        with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".txt") as listed:
            listed.writelines(f"{entry}\n" for entry in entries)
            listed.flush()
            run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet"),
                    *("--disable-pip-version-check", "--no-deps", "--require-hashes"),
                    *("--only-binary=:all:", "--ignore-requires-python"),
                    f"--python-version={python}",
                    *(f"--requirement={listed.name}", f"--dest={WHEELS}"),
                ],
                "a package index must be within reach; if pip spoke of a hash, do not go on",
            )


def pins(name: str) -> list[str]:
    """Return what a list pins: name, version and hashes, on one line, for whomever it is."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text("ascii").replace("\\\n", "")
    return [re.sub(r" ;.*?(?= --hash)", "", line) for line in text.splitlines()]


def rounds(entries: Sequence[str]) -> list[list[str]]:
    """Deal the pins out so that no list has two versions of a package."""
    found: list[dict[str, str]] = []
    for entry in dict.fromkeys(entries):
        package = entry.partition("==")[0]
        free = next((one for one in found if package not in one), None)
        if free is None:
            found.append(free := {})
        free[package] = entry
    return [list(one.values()) for one in found]


def build(wanted: Wanted, target: str) -> dict[str, object]:
    """Build one image and return what it is: name, id, size in bytes, seconds."""
    began = time.monotonic()
    date = source_date()
    arguments = {
        "SOURCE_DATE_EPOCH": date,
        "VERSION": version(),
        "REVISION": of_commit("%H", "unknown"),
        **({"BASE": wanted.base} if wanted.base else {}),
    }
    dated = {
        "buildah": ["bud", f"--timestamp={date}"],
        "podman": ["build", f"--timestamp={date}"],
        "docker": ["buildx", "build", "--output=type=docker,rewrite-timestamp=true"],
    }[wanted.program]
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    run(
        [
            *wanted.engine,
            *dated,
            *wanted.options,
            *given,
            "--file=deploy/Containerfile",
            f"--target={target}",
            f"--tag={wanted.name(target)}",
            ".",
        ],
        "what the engine said above names the step; a base is given by --base",
        SOURCE_DATE_EPOCH=date,
    )
    seconds = round(time.monotonic() - began, 1)
    told: dict[str, object] = {"image": wanted.name(target), "seconds": seconds}
    told["id"] = image_id(wanted, target)
    if wanted.archives is not None:
        told["archive"] = str(save(wanted, target))
    return told


def image_id(wanted: Wanted, target: str) -> str:
    """Return the digest of an image's configuration, which names all its layers by theirs."""
    name = wanted.name(target)
    asked = {
        "buildah": ["inspect", "--type=image", "--format={{.FromImageID}}", name],
        "podman": ["image", "inspect", "--format={{.Id}}", name],
        "docker": ["image", "inspect", "--format={{.Id}}", name],
    }[wanted.program]
    found = run([*wanted.engine, *asked], "the engine does not know the image it built").strip()
    return found if found.startswith("sha256:") else f"sha256:{found}"


def save(wanted: Wanted, target: str) -> Path:
    """Write an image as the archive that `docker load` and containerd read."""
    assert wanted.archives is not None
    wanted.archives.mkdir(parents=True, exist_ok=True)
    archive = wanted.archives / f"penstock-{target}.tar"
    archive.unlink(missing_ok=True)
    name = wanted.name(target)
    command = {
        "buildah": ["push", "--quiet", name, f"docker-archive:{archive}:{name}"],
        "podman": ["save", "--format=docker-archive", f"--output={archive}", name],
        "docker": ["save", f"--output={archive}", name],
    }[wanted.program]
    run([*wanted.engine, *command], "the disk may be full")
    return archive


def write_bill(archive: Path, target: str, folder: Path) -> Path:
    """Copy an image's bill of materials out of its archive."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"penstock-{target}.spdx.json"
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(name)) as layer:
                found = next((one for one in layer if one.name.lstrip("./") == BILL), None)
                content = layer.extractfile(found) if found else None
                if content is not None:
                    written.write_bytes(content.read())
    return written


def find_engine(asked: str | None) -> Sequence[str]:
    """Return the engine's command: the one asked for, else the first that is installed."""
    if asked:
        return shlex.split(asked)
    for name in ENGINES:
        if shutil.which(name):
            return [name]
    raise CannotBuild("there is no buildah, podman or docker", "install one, or name it: --engine")


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    made = argparse.ArgumentParser(prog="make images", description=__doc__)
    made.add_argument("--engine", help="buildah, podman or docker, with options of its own")
    made.add_argument("--build-option", action="append", default=[], help="one more for its build")
    made.add_argument("--base", help="base of both images, instead of the public Python one")
    made.add_argument("--prefix", default="penstock-", help="what the names begin with")
    made.add_argument("--tag", default=version(), help="their tag; the version if not given")
    made.add_argument("--target", action="append", choices=TARGETS, help="one image alone")
    made.add_argument(
        "--offline",
        metavar="3.11",
        help="fetch the packages first, for this version of Python; the build needs no network",
    )
    made.add_argument("--archives", type=Path, help="folder to write the images to, as archives")
    made.add_argument("--bills", type=Path, help="folder to copy the bills of materials to")
    return made


def main() -> int:
    """Build what the command line asks for; one line of JSON for each image."""
    asked = parser().parse_args()
    archives = asked.archives or (REPOSITORY / "dist" / "images" if asked.bills else None)
    try:
        if asked.offline:
            fetch_wheels(asked.offline)
        engine = find_engine(asked.engine)
        wanted = Wanted(engine, asked.build_option, asked.base, asked.prefix, asked.tag, archives)
        for target in asked.target or TARGETS:
            told = build(wanted, target)
            if asked.bills:
                archive = Path(str(told["archive"]))
                told["bill"] = str(write_bill(archive, target, asked.bills))
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    except CannotBuild as error:
        sys.stderr.write(f"penstock: error: {error}\npenstock: hint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
