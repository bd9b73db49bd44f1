"""Time of the tokenize stage at the size of CUHK-PEDES: 68,126 training captions, 60 masking draws.

python -m benchmarks.tokenize
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from irra.config import load_params
from irra.data.datasets import Record
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import write_tokens

IMAGES = 34_063
WORDS = 23.5  # mean length of a caption of CUHK-PEDES (Li et al., CVPR 2017)
TARGET = 60.0


def main() -> None:
    """Make captions, tokenize them, and print how long that took."""
    config = load_params(Path("presets/cuhk-pedes.yaml")).tokenize
    with tempfile.TemporaryDirectory() as folder:
        store = _write_store(Path(folder))
        start = time.perf_counter()
        write_tokens(store, config, Path(folder, "tokens"))
        seconds = time.perf_counter() - start
        megabytes = sum(path.stat().st_size for path in Path(folder, "tokens").iterdir()) / 1e6
    words = np.mean([len(caption.split()) for caption in store.captions])
    print(f"machine: {describe()}")
    print(f"tokenize: {len(store.captions)} captions of {words:.1f} words, {config.mask_draws} draws:", end=" ")
    print(f"{seconds:.1f} s (target {TARGET:.0f}), {megabytes:.0f} MB on disk")


def _write_store(folder: Path) -> PreparedStore:
    """Write tiny images with two captions each, with the vocabulary and length of real ones."""
    rng = np.random.default_rng(0)
    vocabulary = _vocabulary()
    writer = StoreWriter(folder, "captions", (16, 16))
    pixels = np.zeros((16, 16, 3), np.uint8)
    for image in range(IMAGES):
        lengths = rng.poisson(WORDS, 2)
        captions = tuple(" ".join(rng.choice(vocabulary, max(3, length))) for length in lengths)
        writer.add(Record(image // 3, f"{image}.png", captions, "train"), pixels)
    writer.finish()
    return PreparedStore.open(folder)


def _vocabulary() -> np.ndarray:
    """Return English words: the tokens of CLIP that are whole words."""
    from open_clip.tokenizer import SimpleTokenizer

    pieces = [piece[:-4] for piece in SimpleTokenizer().encoder if piece.endswith("</w>")]
    return np.array([piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2][:9000])


if __name__ == "__main__":
    main()
