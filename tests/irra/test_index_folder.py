"""Making an index of any folder of pictures, and keeping it up to date."""

import fcntl
import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from irra.data.store import PreparedStore
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.search.folder import FolderGallery
from irra.search.gallery import check_model
from irra.search.pictures import find_pictures
from irra.search.update import Update, index_folder
from irra.utils.errors import UserError
from tests.models import small_model

MODEL = "a" * 64


class CountingEncoder(Encoder):
    """Notes how many pictures it was given."""

    encoded = 0

    def images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.encoded += len(pixels)
        return super().images(pixels)


@pytest.fixture(scope="module")
def encoder() -> CountingEncoder:
    return CountingEncoder(small_model())


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures, two of them in folders."""
    for number, name in enumerate(["a.jpg", "b.PNG", "c.webp", "day/d.bmp", "day/night/e.tiff"]):
        draw(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def update(photos: Path, encoder: Encoder, fingerprint: str = MODEL, **options: int) -> Update:
    return index_folder(photos, encoder, fingerprint, photos.parent / "index", **options)


def opened(photos: Path) -> FolderGallery:
    return FolderGallery.open(photos.parent / "index")


def paths(gallery: FolderGallery) -> list[str]:
    return [gallery.entry(row).path for row in range(gallery.size)]


def test_pictures_of_all_kinds_and_depths_are_found(photos: Path, encoder: CountingEncoder) -> None:
    (photos / "notes.txt").write_text("no picture")
    draw(photos / ".trash" / "old.jpg", 9)
    draw(photos / "._a.png", 9)
    done = update(photos, encoder, batch_size=2)
    assert (done.added, done.kept, done.removed, done.skipped) == (5, 0, 0, [])
    assert paths(opened(photos)) == ["a.jpg", "b.PNG", "c.webp", "day/d.bmp", "day/night/e.tiff"]
    assert opened(photos).entry(0).pid is None


def test_unusable_files_are_left_out_and_listed(photos: Path, encoder: CountingEncoder) -> None:
    (photos / "empty.jpg").touch()
    (photos / "broken.png").write_bytes(b"no picture at all")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:400])
    Image.new("1", (10_000, 8_000)).save(photos / "bomb.png")
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "itself.jpg").symlink_to(photos / "itself.jpg")
    done = update(photos, encoder)
    reasons = {item["path"]: item["reason"] for item in done.skipped}
    assert set(reasons) == {"empty.jpg", "broken.png", "cut.jpg", "bomb.png", "gone.jpg", "itself.jpg"}
    assert reasons["empty.jpg"] == "an empty file"
    assert "more than" in reasons["bomb.png"]
    assert reasons["itself.jpg"] == "Too many levels of symbolic links"
    assert opened(photos).info.skipped == done.skipped
    assert done.added == 5


def test_links_to_folders_are_followed_once(photos: Path, encoder: CountingEncoder, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "f.jpg", 7)
    (photos / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "day" / "back").symlink_to(photos, target_is_directory=True)
    update(photos, encoder)
    assert paths(opened(photos))[-1] == "linked/f.jpg"
    assert opened(photos).size == 6


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPE", "avif"])
def test_a_picture_of_a_rarer_suffix_is_indexed(tmp_path: Path, encoder: CountingEncoder, suffix: str) -> None:
    draw(tmp_path / "a.png", 0)
    content = "AVIF" if suffix == "avif" else "JPEG"
    (tmp_path / "photos").mkdir()
    Image.open(tmp_path / "a.png").save(tmp_path / "photos" / f"a.{suffix}", content)
    assert update(tmp_path / "photos", encoder).added == 1


def test_what_is_not_looked_at_is_counted_by_suffix(photos: Path) -> None:
    for name in ("notes.txt", "day/more.TXT", "clip.mp4", "README", ".hidden.txt"):
        (photos / name).touch()
    with pytest.warns(UserWarning, match="not looked at") as caught:
        find_pictures(photos)
    counts = str(caught[0].message).rpartition(": ")[2]
    assert sorted(counts.split(", ")) == ["1 .mp4", "1 without a suffix", "2 .txt"]


def test_a_name_that_is_no_unicode_is_left_out(photos: Path) -> None:
    os.link(photos / "a.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")
    found, skipped = find_pictures(photos)
    assert len(found) == 5
    assert skipped == [{"path": "caf\ufffd.jpg", "reason": "its name is not valid UTF-8"}]


def test_embeddings_and_thumbnails_are_those_of_the_resized_picture(photos: Path, encoder: CountingEncoder) -> None:
    from irra.data.images import load_image

    update(photos, encoder)
    gallery = opened(photos)
    pixels = load_image(photos / "c.webp", (64, 32))
    scores, rows = gallery.search(encoder.images(pixels[None]), 1)
    assert rows[0, 0] == 2
    assert scores[0, 0] == pytest.approx(1, abs=1e-3)


def test_an_unchanged_folder_costs_nothing_and_shows_no_progress(
    photos: Path, encoder: CountingEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    update(photos, encoder)
    assert "index: 5/5 pictures" in capsys.readouterr().err
    encoder.encoded = 0
    written = (photos.parent / "index" / "info.json").stat().st_mtime_ns
    again = update(photos, encoder)
    assert (again.added, again.kept, again.removed, encoder.encoded) == (0, 5, 0, 0)
    assert capsys.readouterr().err == ""
    assert (photos.parent / "index" / "info.json").stat().st_mtime_ns == written


def test_a_picture_that_stays_broken_costs_no_writing(photos: Path, encoder: CountingEncoder) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    update(photos, encoder)
    written = (photos.parent / "index" / "info.json").stat().st_mtime_ns
    assert [item["path"] for item in update(photos, encoder).skipped] == ["broken.jpg"]
    assert (photos.parent / "index" / "info.json").stat().st_mtime_ns == written


def test_a_broken_picture_that_is_gone_is_not_listed_any_more(photos: Path, encoder: CountingEncoder) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    update(photos, encoder)
    (photos / "broken.jpg").unlink()
    update(photos, encoder)
    assert opened(photos).info.skipped == []


def test_captions_of_another_source_do_not_stay(photos: Path, encoder: CountingEncoder, store: PreparedStore) -> None:
    index_split(store, "test", encoder, MODEL, photos.parent / "index", "float16", 4)
    assert opened(photos).info.captions > 0
    update(photos, encoder, replace=True)
    assert (opened(photos).size, opened(photos).info.captions) == (5, 0)


def test_only_one_process_makes_an_index(photos: Path, encoder: CountingEncoder) -> None:
    with (photos.parent / ".index.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="index: another process is writing it"):
            update(photos, encoder)
    assert update(photos, encoder).added == 5
    assert sorted(path.name for path in photos.parent.iterdir()) == ["index", "photos"]


def test_only_what_changed_is_encoded_and_the_result_is_that_of_a_fresh_index(
    photos: Path, encoder: CountingEncoder
) -> None:
    update(photos, encoder)
    (photos / "a.jpg").unlink()
    draw(photos / "b.PNG", 20)
    os.utime(photos / "c.webp", ns=(1, 1))  # as a copy or a download leaves it: another time, the same content
    draw(photos / "new.jpg", 21)
    encoder.encoded = 0
    done = update(photos, encoder)
    assert (done.added, done.kept, done.removed, encoder.encoded) == (2, 3, 2, 2)
    fresh = FolderGallery.open(index_fresh(photos, encoder))
    changed = opened(photos)
    assert sorted(paths(changed)) == paths(fresh)
    query = np.random.default_rng(0).standard_normal((1, fresh.info.dimension)).astype(np.float32)
    rankings = [
        [(gallery.entry(row), score) for score, row in zip(*(x[0] for x in gallery.search(query, 9)), strict=True)]
        for gallery in (changed, fresh)
    ]
    assert rankings[0] == rankings[1]


def index_fresh(photos: Path, encoder: Encoder) -> Path:
    index_folder(photos, encoder, MODEL, photos.parent / "fresh")
    return photos.parent / "fresh"


def test_content_that_changes_under_the_same_size_is_seen(photos: Path, encoder: CountingEncoder) -> None:
    update(photos, encoder)
    size = (photos / "day/d.bmp").stat().st_size
    draw(photos / "day/d.bmp", 30)
    assert (photos / "day/d.bmp").stat().st_size == size
    assert update(photos, encoder).added == 1


@pytest.mark.parametrize("name", ["embeddings.npy", "entries.parquet", "thumbnails.bin"])
def test_a_damaged_index_is_made_anew(photos: Path, encoder: CountingEncoder, name: str) -> None:
    update(photos, encoder)
    path = photos.parent / "index" / name
    path.write_bytes(b"\0" * path.stat().st_size)
    assert update(photos, encoder).added == 5
    opened(photos).check_thumbnails()


def test_an_index_that_cannot_be_opened_is_made_anew(photos: Path, encoder: CountingEncoder) -> None:
    update(photos, encoder)
    (photos.parent / "index" / "embeddings.npy").unlink()
    assert update(photos, encoder, "b" * 64).added == 5
    check_model(opened(photos), "b" * 64)


def test_an_index_of_another_model_is_replaced_on_demand_only(photos: Path, encoder: CountingEncoder) -> None:
    update(photos, encoder)
    with pytest.raises(UserError, match=rf"by model {'a' * 12}, not of .* by model {'b' * 12}.*--replace"):
        update(photos, encoder, "b" * 64)
    check_model(opened(photos), MODEL)
    done = update(photos, encoder, "b" * 64, replace=True)
    assert (done.added, done.kept) == (5, 0)
    check_model(opened(photos), "b" * 64)


def test_an_index_of_another_folder_is_replaced_on_demand_only(photos: Path, encoder: CountingEncoder) -> None:
    update(photos, encoder)
    photos.rename(photos.with_name("moved"))
    moved, index = photos.with_name("moved"), photos.parent / "index"
    with pytest.raises(UserError, match=rf"is an index of {re.escape(str(photos))} "):
        index_folder(moved, encoder, MODEL, index)
    done = index_folder(moved, encoder, MODEL, index, replace=True)
    assert (done.added, done.kept, done.info.source) == (0, 5, str(moved))


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, encoder: CountingEncoder, name: str) -> None:
    with pytest.raises(UserError, match="no pictures in this folder" if name == "." else "no such folder"):
        index_folder(tmp_path / name, encoder, MODEL, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_folder_of_broken_pictures_is_refused_and_leaves_nothing(tmp_path: Path, encoder: CountingEncoder) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"no usable picture .* a\.jpg \(not a JPEG"):
        update(tmp_path / "photos", encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_is_no_index_is_not_replaced(photos: Path, encoder: CountingEncoder) -> None:
    with pytest.raises(UserError, match="exists and is not an index"):
        index_folder(photos, encoder, MODEL, photos)


def test_a_pipe_among_the_pictures_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert find_pictures(tmp_path) == ([], [{"path": "a.jpg", "reason": "not a regular file"}])
