import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from irra.utils.files import (
    files_below,
    hash_file,
    replace_file,
    replace_files,
    replace_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def write_half_a_file(path: Path, error: BaseException) -> None:
    with replace_file(path) as temporary:
        temporary.write_text("half")
        raise error


def write_half_a_folder(path: Path, error: BaseException) -> None:
    with replace_folder(path) as folder:
        fill(folder, a="half")
        raise error


def test_a_written_file_replaces_the_previous_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_while_writing_leaves_the_previous_file(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(error, match="midway"):
        write_half_a_file(tmp_path / "a", error("midway"))
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def write_one_of_two(first: Path, second: Path) -> None:
    with replace_files(first, second) as (temporary, _):
        temporary.write_text("new")
        raise OSError("midway")


def test_of_files_that_belong_together_none_is_replaced_when_one_fails(tmp_path: Path) -> None:
    fill(tmp_path, a="old", b="old")
    with pytest.raises(OSError, match="midway"):
        write_one_of_two(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a", "b"]


KILLED_WRITER = """
import os, sys
from pathlib import Path
from irra.utils.files import replace_file
with replace_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_of_a_file_left_is_removed_by_the_next(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path / "a")])
    assert (result.returncode, len(names(tmp_path))) == (-9, 1)
    write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


def test_files_that_belong_together_never_look_whole_between_their_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, a="old", b="old", c="old")
    rename, seen = os.replace, []

    def watched(source: Path, target: Path) -> None:
        seen.append((tmp_path / "a").exists())
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with replace_files(tmp_path / "a", tmp_path / "b", tmp_path / "c") as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert seen == [False, False, False]
    assert [(tmp_path / name).read_text() for name in "abc"] == ["new", "new", "new"]


def test_a_file_in_an_unfinished_one_s_place_is_written_without_another(tmp_path: Path) -> None:
    with replace_file(tmp_path / "a") as temporary:
        write_text(temporary, "text")
        assert len(names(tmp_path)) == 1
    assert (tmp_path / "a").read_text() == "text"


def test_two_writers_of_a_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    with replace_file(tmp_path / "a") as first, replace_file(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "b" / "c" / "a", "text")
    assert (tmp_path / "b" / "c" / "a").read_text() == "text"


def test_json_round_trips_and_keeps_its_characters_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"caption": "紅 coat", "n": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"caption": "紅 coat", "n": [1, 2.5, None]}
    assert "紅" in (tmp_path / "a.json").read_text()


def test_a_number_that_json_lacks_is_refused_and_the_previous_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == 1


def test_a_written_folder_replaces_the_previous_one_wholly(tmp_path: Path) -> None:
    fill(tmp_path / "store", old="old", both="old")
    with replace_folder(tmp_path / "store") as folder:
        fill(folder, both="new")
    assert names(tmp_path / "store") == ["both"]
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_while_filling_leaves_the_previous_folder(tmp_path: Path, error: type[BaseException]) -> None:
    fill(tmp_path / "store", a="old")
    with pytest.raises(error, match="midway"):
        write_half_a_folder(tmp_path / "store", error("midway"))
    assert (tmp_path / "store" / "a").read_text() == "old"
    assert names(tmp_path) == ["store"]


def test_a_killed_process_leaves_the_previous_folder_and_the_next_one_succeeds(tmp_path: Path) -> None:
    fill(tmp_path / "store", a="old")
    script = (
        "import os, sys; from pathlib import Path; from irra.utils.files import replace_folder\n"
        "with replace_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('half'); os.kill(os.getpid(), 9)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")])
    assert result.returncode == -9
    assert (tmp_path / "store" / "a").read_text() == "old"
    with replace_folder(tmp_path / "store") as folder:
        fill(folder, a="new")
    assert names(tmp_path / "store") == ["a"]
    assert names(tmp_path) == ["store"]


def write_half_and_note(path: Path, error: BaseException, **notes: str) -> None:
    with replace_folder(path, resume=True) as folder:
        fill(folder, a="finished", b="half")
        fill(folder.parent, **notes)
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_a_writer_noted_before_it_failed_is_there_for_the_next_one(
    tmp_path: Path, error: type[BaseException]
) -> None:
    fill(tmp_path / "store", a="old")
    with pytest.raises(error, match="midway"):
        write_half_and_note(tmp_path / "store", error("midway"), note="a")
    assert names(tmp_path / "store") == ["a"]
    assert names(tmp_path) == ["store", "store.partial.tmp"]
    with replace_folder(tmp_path / "store", resume=True) as folder:
        assert (names(folder), (folder.parent / "note").read_text()) == (["a", "b"], "a")
    assert names(tmp_path / "store") == ["a", "b"]
    assert names(tmp_path) == ["store"]


def test_of_a_writer_that_failed_without_a_note_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="midway"):
        write_half_and_note(tmp_path / "store", OSError("midway"))
    assert names(tmp_path) == []


def test_a_kill_between_the_two_renames_is_mended_by_the_next_write(tmp_path: Path) -> None:
    fill(tmp_path / "store.previous.tmp", a="old")
    with pytest.raises(OSError, match="midway"):
        write_half_a_folder(tmp_path / "store", OSError("midway"))
    assert (tmp_path / "store" / "a").read_text() == "old"


def test_a_rename_that_fails_puts_the_previous_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "store", a="old")
    rename = os.replace

    def fail_for_the_new_folder(source: Path, target: Path) -> None:
        if Path(target).name == "store" and "previous" not in Path(source).name:
            raise OSError("no space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_for_the_new_folder)
    with pytest.raises(OSError, match="no space"), replace_folder(tmp_path / "store") as folder:
        fill(folder, a="new")
    assert (tmp_path / "store" / "a").read_text() == "old"
    assert names(tmp_path) == ["store"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with replace_folder(tmp_path / "link") as folder:
        fill(folder, a="new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a").read_text() == "new"


def test_a_file_in_the_place_of_a_folder_is_not_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "store", "precious")
    with pytest.raises(NotADirectoryError), replace_folder(tmp_path / "store"):
        pass
    assert (tmp_path / "store").read_text() == "precious"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from irra.utils.files import replace_file

def safetensors(path): save_file({"a": torch.zeros(100_000)}, path)
def numpy(path): np.save(path.open("wb"), np.zeros(100_000))
def parquet(path): pq.write_table(pa.table({"a": np.random.default_rng(0).random(100_000)}), path)
def plain(path): path.write_bytes(bytes(100_000))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    with replace_file(Path(sys.argv[1])) as temporary:
        globals()[sys.argv[2]](temporary)
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.parametrize(
    ("writer", "number"),
    [("safetensors", errno.EFBIG), ("numpy", errno.ENOSPC), ("parquet", errno.EFBIG), ("plain", errno.EFBIG)],
)
def test_a_disk_that_takes_no_more_is_an_error_with_number_and_path(tmp_path: Path, writer: str, number: int) -> None:
    write_text(tmp_path / "a", "old")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a"), writer]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{number} {tmp_path / 'a'}\n", done.stderr
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_is_hashed_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_files_below_a_folder_are_listed_once_through_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "b" / "file")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    assert sorted(files_below(tmp_path)) == ["a/b/file", "linked"]
