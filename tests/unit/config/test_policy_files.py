"""Policy directories, read as of one moment."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config import policy_files
from broker.config.policy_files import look_at, read_policy_files
from broker.issuance.errors import Broken, Unreachable
from broker.policy.yamlfile import Faults


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a file in every folder."""
    for name in ("default.yaml", "communities/web.yaml", "shared/all.yaml", "cases/default.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"name: {name}\n")
    return tmp_path


def test_all_folders_are_read_and_nothing_else(folder: Path) -> None:
    """Hidden files are other programs' own, and notes are notes."""
    (folder / "notes.txt").write_text("x")
    (folder / ".default.yaml.swp").write_text("x")
    (folder / ".hidden.yaml").write_text("x")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "x.yaml").write_text("x")
    (folder / "bundle.manifest").write_text("m")
    (folder / "bundle.anna.sig").write_text("s")
    texts = read_policy_files([folder])
    assert set(texts.files) == {
        "default.yaml",
        "communities/web.yaml",
        "shared/all.yaml",
        "cases/default.yaml",
    }
    assert set(texts.bundle) == {"bundle.manifest", "bundle.anna.sig"}
    assert texts.places["default.yaml"] == str(folder / "default.yaml")


def test_files_of_several_directories_are_told_apart(tmp_path: Path) -> None:
    """By the name of their directory, and its place where two have one name."""
    places = [tmp_path / "a" / "policies", tmp_path / "b" / "policies", tmp_path / "c" / "more"]
    for place in places:
        place.mkdir(parents=True)
        (place / "default.yaml").write_text("x")
    assert [trace.name for trace in look_at(places)] == [
        "2-policies/default.yaml",
        "more/default.yaml",
        "policies/default.yaml",
    ]


def test_swapped_link_is_read_whole(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: links into ..data, which is a link itself."""
    for number in (1, 2):
        release = tmp_path / f"..2026_{number}"
        release.mkdir()
        for name in ("a.yaml", "b.yaml"):
            (release / name).write_text(f"{name} {number}")
    (tmp_path / "..data").symlink_to("..2026_1")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    before = look_at([tmp_path])
    assert read_policy_files([tmp_path]).files == {"a.yaml": b"a.yaml 1", "b.yaml": b"b.yaml 1"}
    (tmp_path / "..next").symlink_to("..2026_2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert look_at([tmp_path]) != before
    texts = read_policy_files([tmp_path])
    assert texts.files == {"a.yaml": b"a.yaml 2", "b.yaml": b"b.yaml 2"}
    assert texts.places["a.yaml"] == str(tmp_path / "a.yaml")


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda folder: (folder / "default.yaml").write_text("longer than it was before"),
    "remove": lambda folder: (folder / "shared" / "all.yaml").unlink(),
    "add": lambda folder: (folder / "new.yaml").write_text("x"),
    "swap": lambda folder: (folder / "shared").rename(folder / "was-shared"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_changes_while_it_is_read_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Half of the old set and half of the new one was never meant by anybody."""
    whole = policy_files._read

    def meddle(trace: policy_files.Trace) -> bytes:
        octets = whole(trace)
        if trace.name == "communities/web.yaml":
            CHANGES[change](folder)
        return octets

    monkeypatch.setattr(policy_files, "_read", meddle)
    with pytest.raises(Unreachable, match="are being changed"):
        read_policy_files([folder])


def test_file_that_vanishes_before_it_is_read_has_the_set_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the set that somebody takes a file away."""
    whole = policy_files._read

    def vanish(trace: policy_files.Trace) -> bytes:
        if trace.name == "default.yaml":
            Path(trace.path).unlink()
        return whole(trace)

    monkeypatch.setattr(policy_files, "_read", vanish)
    with pytest.raises(Unreachable, match="are being changed"):
        read_policy_files([folder])


def _faults(folder: Path) -> list[str]:
    with pytest.raises(Faults) as caught:
        read_policy_files([folder])
    return [str(fault) for fault in caught.value.faults]


def test_link_to_nothing_is_told(folder: Path) -> None:
    """It stays so, unlike a file that somebody takes away."""
    (folder / "x.yaml").symlink_to("gone.yaml")
    assert _faults(folder) == [f"{folder}/x.yaml:1: leads to nothing (a link whose end is missing)"]


def test_link_out_of_the_directory_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Else whoever may write a policy could have secrets of the broker quoted to them."""
    outside = tmp_path.parent / f"{tmp_path.name}-secrets"
    outside.mkdir()
    (outside / "key.yaml").write_text("the secret\n")
    (folder / "communities" / "x.yaml").symlink_to(outside / "key.yaml")
    (folder / "shared" / "all.yaml").unlink()
    (folder / "shared").rmdir()
    (folder / "shared").symlink_to(outside)
    said = _faults(folder)
    assert [f"{folder}/communities/x.yaml:1", f"{folder}/shared/key.yaml:1"] == [
        one.partition(": ")[0] for one in said
    ]
    assert all("leads out of the policy directory" in one for one in said)


def test_link_within_the_directory_is_followed(folder: Path) -> None:
    """As is one that leads to the directory itself."""
    (folder / "communities" / "x.yaml").symlink_to("web.yaml")
    link = folder.parent / f"{folder.name}-link"
    link.symlink_to(folder)
    files = read_policy_files([link]).files
    assert files["communities/x.yaml"] == files["communities/web.yaml"]


def test_link_in_a_circle_is_told(folder: Path) -> None:
    """Following it would never end."""
    (folder / "x.yaml").symlink_to("y.yaml")
    (folder / "y.yaml").symlink_to("x.yaml")
    assert len(_faults(folder)) == 2


def test_pipe_is_not_waited_for(folder: Path) -> None:
    """Reading one would hang for as long as nobody writes."""
    os.mkfifo(folder / "x.yaml")
    assert _faults(folder) == [f"{folder}/x.yaml:1: is no regular file"]


def test_directory_is_no_file(folder: Path) -> None:
    """Whatever it is called."""
    (folder / "x.yaml").mkdir()
    assert _faults(folder) == [f"{folder}/x.yaml:1: is no regular file"]


def test_large_file_is_not_read(folder: Path) -> None:
    """Fifty megabytes are refused by their size alone."""
    with (folder / "x.yaml").open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    (said,) = _faults(folder)
    assert "is 52428800 bytes long, the limit is 1048576 bytes" in said


def test_name_that_nobody_would_read_is_told(folder: Path) -> None:
    """A rule that everybody believes in and nobody reads is worse than none."""
    (folder / "deny.yml").write_text("x")
    assert "call it deny.yaml, or take it away" in _faults(folder)[0]


def test_faults_of_all_files_are_told_together(folder: Path) -> None:
    """Two unreadable files are two faults."""
    (folder / "x.yaml").symlink_to("gone.yaml")
    (folder / "deny.yml").write_text("x")
    assert len(_faults(folder)) == 2


def test_thousand_files_are_read(tmp_path: Path) -> None:
    """A department each."""
    (tmp_path / "communities").mkdir()
    for number in range(1000):
        (tmp_path / "communities" / f"d{number}.yaml").write_text(f"n: {number}\n")
    assert len(read_policy_files([tmp_path]).files) == 1000


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And too much of them."""
    monkeypatch.setattr(policy_files, "MAX_FILES", 3)
    with pytest.raises(Broken, match="more than 3 files"):
        look_at([folder])
    monkeypatch.setattr(policy_files, "MAX_FILES", 4)
    monkeypatch.setattr(policy_files, "MAX_SET_BYTES", 10)
    with pytest.raises(Broken, match="larger together than the limit, 10 bytes"):
        read_policy_files([folder])


def test_missing_directory_is_a_reason_to_stop(tmp_path: Path) -> None:
    """It does not mean that there are no rules."""
    with pytest.raises(Broken, match="gone is not there"):
        look_at([tmp_path / "gone"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(Broken, match="file is not there"):
        look_at([tmp_path / "file"])


def test_trace_of_the_same_size_tells_a_change(folder: Path) -> None:
    """A file that was written over in the same second."""
    before = look_at([folder])
    path = folder / "default.yaml"
    path.write_bytes(b"N" + path.read_bytes()[1:])
    os.utime(path, ns=(0, 0))
    middle = look_at([folder])
    path.write_bytes(b"M" + path.read_bytes()[1:])
    os.utime(path, ns=(0, 0))
    assert len({before, middle, look_at([folder])}) == 3
