"""Writing the dataset to disk, in the layout of CUHK-PEDES."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irra.config import SyntheticConfig
from irra.synthetic.attributes import Person, draw_people, draw_person
from irra.synthetic.captions import describe
from irra.synthetic.photograph import take
from irra.synthetic.scene import CAMERAS
from irra.utils.cores import available_cores, worker_pool
from irra.utils.files import replace_folder, write_json
from irra.utils.progress import progress

JPEG_QUALITY = 92
PEOPLE_PER_WORKER = 16  # fewer are rendered faster than another process starts
CHUNK_PEOPLE = 4


def write_dataset(root: Path, config: SyntheticConfig, workers: int | None = None) -> None:
    """Write `reid_raw.json` and `imgs/` to the folder `root`, replacing existing ones.

    The content depends only on `config`, not on the number of `workers`, the processes that share the work (by default
    one per core, for people enough).
    """
    splits = {"train": config.train_ids, "val": config.val_ids, "test": config.test_ids}
    people = draw_people(config.seed, sum(splits.values()))
    names = [name for name, count in splits.items() for _ in range(count)]
    workers = workers or min(available_cores(), len(people) // PEOPLE_PER_WORKER)
    with replace_folder(root / "imgs") as pending, _mapper(workers) as map_people:
        for camera in CAMERAS:
            (pending / camera.folder).mkdir()
        render = functools.partial(_render_identity, pending, config)
        done = map_people(render, range(1, len(people) + 1), people, names)
        records = [record for part in progress(done, "render people", len(people), "ids") for record in part]
    write_json(root / "reid_raw.json", records)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Like `map`, in `workers` processes if these are at least two."""
    if workers < 2:
        yield map
        return
    with worker_pool(workers) as pool:
        yield functools.partial(pool.map, chunksize=CHUNK_PEOPLE)


def _render_identity(
    folder: Path, config: SyntheticConfig, pid: int, person: Person, split: str
) -> list[dict[str, Any]]:
    """Write all images of one identity, and return their annotations."""
    records = []
    cameras = random.Random(f"cameras/{config.seed}/{pid}").sample(CAMERAS, len(CAMERAS))
    for index in range(config.images_per_id):
        rng = random.Random(f"image/{config.seed}/{pid}/{index}")
        camera = cameras[index % len(cameras)]
        photograph = take(person, config.seed * 1_000_003 + pid, camera, rng)
        name = f"{camera.folder}/{pid:05d}_{index:02d}.jpg"
        photograph.image.save(folder / name, quality=JPEG_QUALITY)
        captions, wrong = [], []
        for _ in range(config.captions_per_image):
            wrong.append(split == "train" and rng.random() < config.wrong_captions)
            described = draw_person(rng) if wrong[-1] else person
            captions.append(describe(described, photograph.visible, photograph.facing, rng))
        record = {"id": pid, "captions": captions, "split": split, "file_path": name, "wrong_captions": wrong}
        records.append(record)
    return records
