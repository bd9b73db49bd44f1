import io
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from irra.data import images as decoding
from irra.data.images import BadImage, load_image, load_images

SIZE = (24, 8)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8))


def resized(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR))


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("size", [(24, 8), (384, 128), (50, 30)])
def test_the_resize_is_that_of_torchvision(tmp_path: Path, picture: Image.Image, size: tuple[int, int]) -> None:
    from torchvision.transforms import Resize

    pixels = load_image(saved(picture, tmp_path / "a.png"), size)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(Resize(size)(picture)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_every_allowed_format_is_read(tmp_path: Path, picture: Image.Image, suffix: str) -> None:
    path = saved(picture, tmp_path / f"a.{suffix}")
    assert np.array_equal(load_image(path, SIZE), resized(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "png"), ("P", "png"), ("RGB", "png"), ("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif")],
)
def test_opaque_modes_become_rgb(tmp_path: Path, picture: Image.Image, mode: str, suffix: str) -> None:
    path = saved(picture.convert(mode), tmp_path / f"a.{suffix}")
    assert Image.open(path).mode == mode
    assert np.array_equal(load_image(path, SIZE), resized(picture.convert(mode).convert("RGB")))


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (30, 50), (200, 40, 90)).convert("CMYK"), tmp_path / "a.jpg")
    assert np.abs(load_image(path, SIZE).astype(int) - (200, 40, 90)).max() <= 3


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    transparent = Image.new("RGBA", (30, 50), (10, 10, 10, 0)).convert(mode)
    path = tmp_path / "a.png"
    transparent.save(path, **({"transparency": transparent.getpixel((0, 0))} if mode == "P" else {}))
    assert (load_image(path, SIZE) == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    path = saved(Image.new("RGBA", (30, 50), (0, 0, 0, 51)), tmp_path / "a.png")
    assert (load_image(path, SIZE) == 204).all()


@pytest.mark.parametrize(("suffix", "order"), [("png", "<"), ("tif", "<"), ("tif", ">")])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str, order: str) -> None:
    grey = (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) * 257).astype(f"{order}u2")
    path = saved(Image.fromarray(grey), tmp_path / f"a.{suffix}")
    assert np.array_equal(load_image(path, SIZE)[..., 1], grey // 257)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_exif_orientation_is_applied_once(tmp_path: Path, suffix: str) -> None:
    top_is_white = np.zeros((40, 20, 3), np.uint8)
    top_is_white[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(top_is_white).save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = load_image(tmp_path / f"a.{suffix}", (20, 40))
    assert (pixels[:, 25:] > 200).all()
    assert (pixels[:, :15] < 50).all()


def test_only_the_first_frame_of_a_gif_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 50), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (load_image(tmp_path / "a.gif", SIZE) == (255, 0, 0)).all()


def refusal(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        load_image(path, SIZE)
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_a_truncated_file_is_refused(tmp_path: Path, picture: Image.Image, suffix: str) -> None:
    path = saved(picture.resize((90, 150)), tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be read" in refusal(path)


def jpeg_of_many_scans(path: Path, scans: int) -> Path:
    """A progressive JPEG that goes over its pixels again and again."""
    buffer = io.BytesIO()
    Image.effect_noise((2000, 2000), 50).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * scans + data[-2:])
    return path


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    assert "scans, which takes too long" in refusal(jpeg_of_many_scans(tmp_path / "a.jpg", 130))


def test_a_progressive_jpeg_is_read(tmp_path: Path) -> None:
    picture = Image.effect_noise((300, 200), 50).convert("RGB")
    picture.save(tmp_path / "a.jpg", progressive=True)
    assert np.array_equal(load_image(tmp_path / "a.jpg", SIZE), resized(Image.open(tmp_path / "a.jpg")))


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert refusal(tmp_path / "a.jpg") == "not a regular file"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert refusal(tmp_path / "a.jpg") == "an empty file"


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    assert "not a JPEG, PNG" in refusal(tmp_path / "a.jpg")


def test_a_format_outside_the_list_is_refused(tmp_path: Path, picture: Image.Image) -> None:
    assert "not a JPEG, PNG" in refusal(saved(picture, tmp_path / "a.ppm"))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, picture: Image.Image, mode: str) -> None:
    assert "no known range" in refusal(saved(picture.convert("L").convert(mode), tmp_path / "a.tif"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jpg") == "no such file"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("side", "expected"), [(8_000, "8000 x 8000 pixels"), (20_000, "more than the 50000000 pixels")]
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, picture: Image.Image, side: int, expected: str
) -> None:
    path = saved(picture, tmp_path / "a.bmp")
    header = bytearray(path.read_bytes())
    header[18:26] = struct.pack("<ii", side, side)  # the claim alone: there are no such pixels in the file
    path.write_bytes(header)
    assert expected in refusal(path)


def test_a_bad_image_survives_the_way_back_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(BadImage(Path("a.jpg"), "an empty file")))
    assert str(error) == "a.jpg: an empty file"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """More than fit into the memory that processes share, which are started for so few."""
    monkeypatch.setattr(decoding, "IMAGES_PER_WORKER", 8)
    monkeypatch.setattr(decoding, "CHUNK_IMAGES", 4)
    rng = np.random.default_rng(0)
    pictures = (Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)) for _ in range(70))
    return [saved(image, tmp_path / f"{number}.png") for number, image in enumerate(pictures)]


@pytest.mark.parametrize(("workers", "linux"), [(2, True), (3, False)])
def test_many_processes_yield_what_a_plain_loop_yields_in_the_same_order(
    files: list[Path], workers: int, linux: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linux:  # other systems have no such file in memory
        monkeypatch.delattr(os, "memfd_create")
    bad = {0, 13, 23, 35, 69}  # also at the very end of the memory that processes share, when it is used first
    for number in bad:
        files[number].write_bytes(b"x")
    found = list(load_images(files, SIZE, workers))
    assert len(found) == len(files)
    assert {item.path for item in found if isinstance(item, BadImage)} == {files[number] for number in bad}
    for position in set(range(len(files))) - bad:
        assert np.array_equal(found[position], load_image(files[position], SIZE))


def test_closing_early_ends_the_processes(files: list[Path]) -> None:
    images = load_images(files, SIZE, workers=2)
    next(images)
    assert multiprocessing.active_children()
    images.close()
    assert not multiprocessing.active_children()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_do_not_outlive_a_killed_parent(files: list[Path]) -> None:
    script = (
        "import multiprocessing, sys, time; from pathlib import Path; from irra.data import images\n"
        "images.IMAGES_PER_WORKER = 8\n"
        "images = images.load_images([Path(path) for path in sys.argv[1:]], (24, 8), workers=2); next(images)\n"
        "print(*(child.pid for child in multiprocessing.active_children()), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert workers
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)
