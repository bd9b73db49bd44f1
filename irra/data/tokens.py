"""Caption token ids and the MLM masking cache, on disk and memory-mapped.

caption_ids.npy   uint16 (captions, L)
twin_ids.npy      uint16 (captions, L)                                  back-translated captions; zeros: none
mlm_ids.npy       uint16 (mask_draws, training captions, L)             masked rows
mlm_chosen.npy    uint8 (mask_draws, training captions, ceil(L / 8))    chosen positions as packed bits
tokens.json       sizes, counts, settings, fingerprints, SHA-256 of the other files

Without back-translated captions there are no twins; without training captions or draws there is no masking cache.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from irra.config import TokenizeConfig
from irra.config.tokenize import MAX_TEXT_LENGTH
from irra.data.bpe import BytePairs
from irra.data.masking import END_ID, MASK_ID, START_ID, mask_tokens
from irra.data.store import PreparedStore
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, check_replaceable, replace_folder
from irra.utils.npy import map_npy, write_npy_header
from irra.utils.progress import progress
from irra.utils.records import QUICK, check_files, hash_files, read_record, write_record

FORMAT_VERSION = 2
MAX_PIECES = MAX_TEXT_LENGTH  # of a row of tokens, at most
INFO = "tokens.json"
TWINS = "twin_ids.npy"
AGAIN = "run the tokenize stage again"
STOLEN_WORD = "jekyll</w>"


class Tokenizer:
    """CLIP's byte-pair tokenizer, with id 49405 freed for `<|mask|>`.

    In CLIP, that id belongs to the last merge, the word "jekyll", which here is split into smaller pieces.
    """

    def __init__(self) -> None:
        self._bpe = BytePairs(unused=1, longest=MAX_PIECES)
        assert self._bpe.pieces[MASK_ID] == STOLEN_WORD, "CLIP's vocabulary has changed"

    def words(self, caption: str) -> list[int]:
        """Token ids of a caption, without start and end."""
        return self._bpe.encode(caption)

    def cut(self, caption: str, text_length: int) -> tuple[list[tuple[str, list[int]]], str]:
        """Split a caption where `encode` cuts it.

        Returns:
            The words that are kept, each with its token ids, and the rest as text.
        """
        words, remaining = caption.split(), text_length - 2
        pieces = []
        for word in words:
            pieces.append(self.words(word)[:remaining])
            remaining -= len(pieces[-1])
        kept = [(word, ids) for word, ids in zip(words, pieces, strict=True) if ids]
        return kept, " ".join(word for word, ids in zip(words, pieces, strict=True) if not ids)

    def encode(self, captions: Iterable[str], text_length: int) -> NDArray[np.uint16]:
        """(N, text_length) rows of start, tokens, end and padding 0; longer captions are cut before the end token."""
        return token_rows([self.words(caption) for caption in captions], text_length)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without start, end and padding; the mask token becomes `[mask]`."""
        pieces = ["[mask] " if i == MASK_ID else self._bpe.decode([i]) for i in ids if 0 < i < START_ID]
        return "".join(pieces).strip()


def token_rows(words: Sequence[list[int]], text_length: int) -> NDArray[np.uint16]:
    """(N, text_length) rows of start, `words`, end and padding 0; longer ones are cut."""
    ids = ([START_ID, *row[: text_length - 2], END_ID] for row in words)
    rows = [row + [0] * (text_length - len(row)) for row in ids]
    return np.array(rows, dtype=np.uint16).reshape(len(words), text_length)


def lengths(ids: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Lengths (N,) of the rows (N, L), including start and end."""
    ends: NDArray[np.int64] = (ids == END_ID).argmax(axis=1)
    return ends + 1


def longest(ids: NDArray[np.uint16]) -> int:
    """Length of the longest of the rows (N, L), including start and end."""
    return int(lengths(ids).max())


def by_length(ids: NDArray[np.uint16], size: int) -> list[NDArray[np.int64]]:
    """Deal rows (N, L) to batches of up to `size` rows of similar length, so that little of a batch is padding.

    The longest come first, so that memory that does not suffice is noticed at once; equally long ones keep their order.

    Returns:
        The row numbers of each batch.
    """
    order = np.argsort(-lengths(ids), kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def trimmed(ids: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Rows (N, L) as int64, trimmed to the longest; the text encoder is causal, so its features do not change."""
    return ids[:, : longest(ids)].astype(np.int64)


class MaskedRows(NamedTuple):
    """Masked token ids and their labels (0 where not chosen), both (N, L) uint16."""

    mlm_ids: NDArray[np.uint16]
    mlm_labels: NDArray[np.uint16]


class Twins(NamedTuple):
    """Token ids of back-translated captions (N, L) uint16, and which of the captions have any (N,) bool."""

    rows: NDArray[np.uint16]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class _Version:
    version: int


@dataclass(frozen=True)
class TokensInfo:
    """What is read of tokens.json; `sha256` of the other files, by name, is empty in tokens of an earlier version."""

    text_length: int
    mask_draws: int
    captions: int
    first_training_row: int
    fingerprint: str
    data_fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenStore:
    """Read access to a tokens folder; `settings` are the parameters of the stage that wrote it."""

    root: Path
    text_length: int
    mask_draws: int
    fingerprint: str
    data_fingerprint: str
    first_training_row: int
    settings: dict[str, Any]
    sha256: dict[str, str]
    caption_ids: NDArray[np.uint16]
    _mlm_ids: NDArray[np.uint16] | None
    _mlm_chosen: NDArray[np.uint8] | None
    _twin_ids: NDArray[np.uint16] | None

    @classmethod
    def open(cls, root: Path) -> "TokenStore":
        """Open the tokens in the folder `root`.

        Raises:
            UserError: They are missing, damaged or of another format version.
        """
        missing = f"{root / INFO}: missing; run the tokenize stage"
        version = read_record(root / INFO, _Version, missing, AGAIN).version
        if version != FORMAT_VERSION:
            raise UserError(f"{root}: format version {version}, this code reads {FORMAT_VERSION}; {AGAIN}")
        info = read_record(root / INFO, TokensInfo, missing, AGAIN)
        length, draws = info.text_length, info.mask_draws
        caption_ids = _map(root / "caption_ids.npy", "uint16", (info.captions, length))
        mlm_ids = _map(root / "mlm_ids.npy", "uint16", (draws, None, length)) if draws else None
        chosen_shape = (draws, None, (length + 7) // 8)
        mlm_chosen = _map(root / "mlm_chosen.npy", "uint8", chosen_shape) if draws else None
        twin_ids = _map(root / TWINS, "uint16", (info.captions, length)) if TWINS in info.sha256 else None
        rows = mlm_ids.shape[1] if mlm_ids is not None else 0
        if not 0 <= info.first_training_row <= info.captions - rows:
            raise UserError(f"{root / INFO}: damaged (first_training_row: not one of the captions); {AGAIN}")
        check_files(root, info.sha256, AGAIN, largest=QUICK)
        return cls(
            root,
            length,
            draws,
            info.fingerprint,
            info.data_fingerprint,
            info.first_training_row,
            info.settings,
            info.sha256,
            caption_ids,
            mlm_ids,
            mlm_chosen,
            twin_ids,
        )

    def verify(self) -> int:
        """Check the SHA-256 of every file; returns how many there are, 0 for tokens of an earlier version.

        Raises:
            UserError: A file is missing or damaged.
        """
        check_files(self.root, self.sha256, AGAIN)
        return len(self.sha256)

    def masked(self, caption_ids: NDArray[np.int64], epoch: int) -> MaskedRows:
        """Masked rows of training captions for `epoch` (from 1): draw (epoch - 1) mod mask_draws of the cache."""
        assert self._mlm_ids is not None, "no masking cache"
        assert self._mlm_chosen is not None
        draw = (epoch - 1) % self.mask_draws
        rows = caption_ids - self.first_training_row
        chosen = np.unpackbits(self._mlm_chosen[draw, rows], axis=1, count=self.text_length).astype(bool)
        labels = np.where(chosen, self.caption_ids[caption_ids], np.uint16(0))
        return MaskedRows(self._mlm_ids[draw, rows], labels)

    def twins(self, caption_ids: NDArray[np.int64]) -> Twins:
        """The back-translated captions of these, with rows of zeros for those that have none."""
        if self._twin_ids is None:
            rows = np.zeros((len(caption_ids), self.text_length), dtype=np.uint16)
        else:
            rows = self._twin_ids[caption_ids]
        return Twins(rows, rows[:, 0] != 0)

    def most_masked(self) -> int:
        """The largest number of tokens that any draw of the masking cache chooses in a caption."""
        assert self._mlm_chosen is not None, "no masking cache"
        return max(int(np.bitwise_count(draw).sum(axis=1).max()) for draw in self._mlm_chosen)

    def vocabulary(self, caption_ids: NDArray[np.int64]) -> list[int]:
        """Token ids that occur in these captions, ascending, after padding 0; start and end are left out."""
        used = np.unique(self.caption_ids[caption_ids])
        return [0, *(int(i) for i in used if 0 < i < MASK_ID)]


def _map(path: Path, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    check_regular_file(path)
    try:
        return map_npy(path, dtype, shape)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged tokens ({error}); {AGAIN}") from None


def tokenize_dataset(prepared: Path, config: TokenizeConfig, target: Path) -> dict[str, Any]:
    """Tokenize the prepared dataset in a folder, as in `write_tokens`.

    Raises:
        UserError: The dataset is missing or damaged, or `target` is in use for something else.
    """
    return write_tokens(PreparedStore.open(prepared), config, target)


def write_tokens(store: PreparedStore, config: TokenizeConfig, target: Path) -> dict[str, Any]:
    """Tokenize all captions, and draw the masking cache for those of the training split, if there is one.

    Returns:
        The contents of tokens.json.

    Raises:
        UserError: `target` is in use for something else.
    """
    check_replaceable(target, INFO, "a folder of tokens")
    tokenizer = Tokenizer()
    captions = progress(store.captions, "tokenize", len(store.captions), "captions")
    words = [tokenizer.words(caption) for caption in captions]
    caption_ids = token_rows(words, config.text_length)
    training = store.caption_ids("train") if "train" in store.splits else np.array([], dtype=np.int64)
    first = int(training[0]) if len(training) else 0
    assert np.array_equal(training, np.arange(first, first + len(training))), "training captions are contiguous"
    draws = config.mask_draws if len(training) else 0
    with replace_folder(target) as folder:
        digest = hashlib.sha256()
        _write_rows(folder / "caption_ids.npy", caption_ids, digest)
        if draws:
            _write_masks(folder, caption_ids[first : first + len(training)], config, digest)
        if store.back_translated:
            _write_rows(folder / TWINS, _twin_rows(store.back_translated, tokenizer, config.text_length), digest)
        info = {
            "version": FORMAT_VERSION,
            "text_length": config.text_length,
            "mask_draws": draws,
            "captions": len(caption_ids),
            "first_training_row": first,
            "longest_caption": longest(caption_ids),
            "cut_captions": sum(len(row) + 2 > config.text_length for row in words),
            "settings": config.model_dump(),
            "data_fingerprint": store.fingerprint,
            "fingerprint": digest.hexdigest(),
            "sha256": hash_files(folder),
        }
        write_record(folder / INFO, info)
    return info


def _twin_rows(twins: Sequence[str | None], tokenizer: Tokenizer, text_length: int) -> NDArray[np.uint16]:
    rows = np.zeros((len(twins), text_length), dtype=np.uint16)
    present = [row for row, text in enumerate(twins) if text]
    rows[present] = tokenizer.encode([text for text in twins if text], text_length)
    return rows


def _write_rows(path: Path, rows: NDArray[np.uint16], digest: "hashlib._Hash") -> None:
    with path.open("wb") as file:
        write_npy_header(file, rows.dtype, rows.shape)
        file.write(rows.data)
    digest.update(rows.data)


def _write_masks(
    folder: Path, caption_ids: NDArray[np.uint16], config: TokenizeConfig, digest: "hashlib._Hash"
) -> None:
    rows, length = caption_ids.shape
    with (folder / "mlm_ids.npy").open("wb") as ids_file, (folder / "mlm_chosen.npy").open("wb") as chosen_file:
        write_npy_header(ids_file, np.dtype(np.uint16), (config.mask_draws, rows, length))
        write_npy_header(chosen_file, np.dtype(np.uint8), (config.mask_draws, rows, (length + 7) // 8))
        for draw in progress(range(config.mask_draws), "mask", config.mask_draws, "draws"):
            masked = mask_tokens(
                caption_ids,
                np.random.default_rng([config.seed, draw]),
                config.mask_probability,
                config.masked_token_rate,
                config.masked_token_unchanged_rate,
            )
            for file, part in ((ids_file, masked.mlm_ids), (chosen_file, np.packbits(masked.chosen, axis=1))):
                file.write(part.data)
                digest.update(part.data)
