"""Images packed by hand, as ``docker save`` would: one layer, a configuration, a manifest.

For what is made here without an engine; images of ours are built by one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1024 * 1024
"""How much of a layer is read at a time."""


def write_image(
    target: Path,
    tag: str,
    *,
    layer: Path | None = None,
    files: Mapping[str, Path] | None = None,
    entrypoint: Sequence[str] = (),
    user: int = 0,
) -> None:
    """Write the archive of an image whose one layer is *layer*, or holds *files* by their paths."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        if layer is None:
            layer = Path(scratch) / "layer.tar"
            _pack(layer, files or {})
        digest = _digest(layer)
        described = _description(digest, entrypoint, user)
        name = hashlib.sha256(described).hexdigest()
        manifest = [
            {"Config": f"{name}.json", "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}
        ]
        part = Path(scratch) / "image.tar"
        with tarfile.open(part, "w") as archive:
            with layer.open("rb") as content:
                entry = tarfile.TarInfo(f"{digest}/layer.tar")
                entry.size = layer.stat().st_size
                archive.addfile(entry, content)
            _add(archive, f"{name}.json", described)
            _add(archive, "manifest.json", json.dumps(manifest).encode())
        shutil.move(part, target)


def extend_image(source: Path, target: Path, variants: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write an archive of images that have more files than the one in *source*.

    *variants* names each image by its tag, and its further files by their paths.  What they have in
    common is in the archive once.
    """
    with tarfile.open(source) as given, tarfile.open(target, "w") as archive:
        (was,) = json.loads(_read(given, "manifest.json"))
        config = json.loads(_read(given, was["Config"]))
        for name in was["Layers"]:
            archive.addfile(given.getmember(name), given.extractfile(name))
        manifest = []
        for tag, files in variants.items():
            layer = _layer(files)
            digest = hashlib.sha256(layer).hexdigest()
            _add(archive, f"{digest}/layer.tar", layer)
            described = _extended(config, digest)
            name = f"{hashlib.sha256(described).hexdigest()}.json"
            _add(archive, name, described)
            layers = [*was["Layers"], f"{digest}/layer.tar"]
            manifest.append({"Config": name, "RepoTags": [tag], "Layers": layers})
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _extended(config: Mapping[str, Any], digest: str) -> bytes:
    layers = [*config["rootfs"]["diff_ids"], f"sha256:{digest}"]
    history = [*config["history"], {"created": config["created"], "comment": "further files"}]
    rootfs = {**config["rootfs"], "diff_ids": layers}
    return json.dumps({**config, "rootfs": rootfs, "history": history}).encode()


def _layer(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for path, content in sorted(files.items()):
            _add(layer, path, content)
    return packed.getvalue()


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found is not None
    return found.read()


def _description(digest: str, entrypoint: Sequence[str], user: int) -> bytes:
    config: dict[str, Any] = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    }
    if entrypoint:
        config["Entrypoint"] = list(entrypoint)
    if user:
        config["User"] = str(user)
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()


def _pack(layer: Path, files: Mapping[str, Path]) -> None:
    with tarfile.open(layer, "w") as archive:
        for name, path in sorted(files.items()):
            _add(archive, name, path.read_bytes(), mode=0o755)


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    archive.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
