"""Building an index folder from a split of a prepared dataset."""

from pathlib import Path

from irra.checkpoint import load_model, model_fingerprint
from irra.config import IndexConfig
from irra.data.splits import check_store
from irra.data.store import PreparedStore
from irra.search.encoder import Encoder
from irra.search.format import Info, check_target
from irra.search.pictures import jpeg
from irra.search.writer import FolderWriter, Picture
from irra.utils.device import choose_device
from irra.utils.errors import UserError
from irra.utils.files import replace_folder
from irra.utils.progress import progress


def index_dataset(prepared: Path, model: Path, config: IndexConfig, target: Path) -> Info:
    """Write an index of a split of a prepared dataset to the folder `target`, encoded by the model in a folder.

    Raises:
        UserError: A folder is missing or damaged, or as in `index_split`.
    """
    store, fingerprint = PreparedStore.open(prepared), model_fingerprint(model)
    check_store(store, {"index.split": config.split})
    encoder = Encoder(load_model(model).to(choose_device(config.device)), config.precision)
    return index_split(store, config.split, encoder, fingerprint, target, config.dtype, config.test_batch_size)


def index_split(
    store: PreparedStore, split: str, encoder: Encoder, fingerprint: str, target: Path, dtype: str, batch_size: int
) -> Info:
    """Write an index of a split's images and captions to the folder `target`; equal captions are stored once.

    Raises:
        UserError: The model takes images of another size, the data has no such split, or `target` is not an index.
    """
    check_target(target)
    size = encoder.model.spec.image_size
    if store.image_size != size:
        raise UserError(f"{store.root} holds images of {store.image_size}, the model takes {size}; prepare it again")
    image_ids = store.image_ids(split)
    texts = list(dict.fromkeys(store.captions[i] for i in store.caption_ids(split)))
    with replace_folder(target) as folder:
        writer = FolderWriter(folder, fingerprint, size, dtype)
        starts = range(0, len(image_ids), batch_size)
        for start in progress(starts, f"index {split} images", len(starts), "batches"):
            ids = image_ids[start : start + batch_size]
            pixels = store.pixels(ids)
            pictures = [
                Picture(store.image_paths[i], jpeg(image), int(store.image_pids[i]))
                for i, image in zip(ids, pixels, strict=True)
            ]
            writer.add(pictures, encoder.images(pixels))
        if texts:
            writer.add_captions(texts, encoder.texts(texts, batch_size, f"index {split} captions"))
        return writer.finish(store.dataset_name, [])
