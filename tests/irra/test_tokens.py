"""Tokenizer and token store."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from irra.config import TokenizeConfig
from irra.data.datasets import Record
from irra.data.masking import END_ID, MASK_ID, START_ID, mask_tokens
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import MAX_PIECES, Tokenizer, TokenStore, by_length, lengths, write_tokens
from irra.utils.errors import UserError
from irra.utils.records import write_record


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def test_ids_are_clip_s_own(tokenizer: Tokenizer) -> None:
    import open_clip

    caption = "A woman with long black hair, in a red coat; she's carrying a WHITE handbag &amp; an umbrella."
    expected = open_clip.tokenize([caption], 77).numpy()
    np.testing.assert_array_equal(tokenizer.encode([caption], 77), expected)


def test_batches_by_length_hold_every_row_once_the_longest_first_and_equals_in_order(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([" ".join(["red"] * (1 + 7 * i % 5)) for i in range(17)], 16)
    batches = by_length(ids, 4)
    assert [len(rows) for rows in batches] == [4, 4, 4, 4, 1]
    expected = sorted(range(17), key=lambda row: (-lengths(ids)[row], row))
    assert np.concatenate(batches).tolist() == expected


def test_the_word_of_the_mask_falls_back_to_its_pieces(tokenizer: Tokenizer) -> None:
    ids = tokenizer.words("Dr Jekyll in a coat")
    assert MASK_ID not in ids
    assert tokenizer.decode(ids) == "dr jekyll in a coat"


@pytest.mark.parametrize(
    "caption",
    [
        "一个穿红色外套的女人",
        "woman 👩‍🦰 in red 🧥",
        "a\x00man\x07 in\tblue\x1b[0m",
        "<end_of_text> a <start_of_text> man",
        "   ",
    ],
)
def test_any_text_gives_one_start_and_one_end(tokenizer: Tokenizer, caption: str) -> None:
    row = tokenizer.encode([caption], 77)[0]
    assert row[0] == START_ID
    assert (row == END_ID).sum() == 1
    assert (row >= MASK_ID).sum() == 2


def test_a_word_of_any_length_is_cut_in_no_time(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode(["coat" * 25_000], 77)[0]  # minutes, if all of it went through BPE
    assert row[-1] == END_ID


@pytest.mark.parametrize("letter", ["a", "-", "女"])
def test_the_longest_words_that_fit_have_clip_s_own_ids(tokenizer: Tokenizer, letter: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    words = [letter * length for length in (75, 76, 300, 1000)]
    assert [tokenizer.words(word)[:75] for word in words] == [SimpleTokenizer().encode(word)[:75] for word in words]


def test_a_word_that_is_cut_has_more_pieces_than_a_row(tokenizer: Tokenizer) -> None:
    piece = max(tokenizer._bpe.pieces, key=len).removesuffix("</w>")  # as few pieces as a word can have
    assert len(tokenizer.words(piece * 1000)) >= MAX_PIECES


def test_five_hundred_words_are_cut_and_still_end(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode(["coat " * 500], 20)[0]
    assert row[-1] == END_ID
    assert row[0] == START_ID
    assert (row != 0).all()


@pytest.mark.parametrize(("text_length", "cut"), [(8, 0), (7, 76)])  # all captions have six words
def test_captions_that_fit_exactly_are_not_counted_as_cut(
    store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path, text_length: int, cut: int
) -> None:
    config = tokenize_config.model_copy(update={"text_length": text_length, "mask_draws": 0})
    assert write_tokens(store, config, tmp_path / "tokens")["cut_captions"] == cut


def test_padding_is_zero_behind_the_end(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode(["a man"], 12)[0]
    assert row[3] == END_ID
    assert not row[4:].any()


def test_epochs_use_the_seeded_draws_in_turn(
    store: PreparedStore, tokens: TokenStore, tokenize_config: TokenizeConfig
) -> None:
    rows = store.caption_ids("train")
    for epoch, draw in [(1, 0), (2, 1), (3, 0)]:
        expected = mask_tokens(tokens.caption_ids[rows], np.random.default_rng([0, draw]), 0.15, 0.8, 0.1)
        masked = tokens.masked(rows, epoch)
        np.testing.assert_array_equal(masked.mlm_ids, expected.mlm_ids)
        np.testing.assert_array_equal(masked.mlm_labels, np.where(expected.chosen, tokens.caption_ids[rows], 0))


def test_rows_are_read_in_any_order(store: PreparedStore, tokens: TokenStore) -> None:
    rows = store.caption_ids("train")
    everything = tokens.masked(rows, 1)
    picked = tokens.masked(rows[[5, 2, 2]], 1)
    np.testing.assert_array_equal(picked.mlm_ids, everything.mlm_ids[[5, 2, 2]])


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_equal_parameters_write_equal_bytes(
    store: PreparedStore, tokens: TokenStore, tokenize_config: TokenizeConfig, tmp_path: Path
) -> None:
    write_tokens(store, tokenize_config, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(tokens.root)


def test_another_seed_gives_another_fingerprint(
    store: PreparedStore, tokens: TokenStore, tokenize_config: TokenizeConfig, tmp_path: Path
) -> None:
    write_tokens(store, tokenize_config.model_copy(update={"seed": 1}), tmp_path / "other")
    assert TokenStore.open(tmp_path / "other").fingerprint != tokens.fingerprint


def test_without_draws_there_is_no_cache(store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path) -> None:
    write_tokens(store, tokenize_config.model_copy(update={"mask_draws": 0}), tmp_path / "plain")
    assert not (tmp_path / "plain" / "mlm_ids.npy").exists()
    assert TokenStore.open(tmp_path / "plain").mask_draws == 0


def made(folder: Path, *records: Record) -> PreparedStore:
    folder.mkdir()
    writer = StoreWriter(folder, "mine", (4, 2))
    for record in records:
        writer.add(record, np.zeros((4, 2, 3), np.uint8))
    writer.finish()
    return PreparedStore.open(folder)


def test_back_translated_captions_are_rows_of_their_own(
    tmp_path: Path, tokenizer: Tokenizer, tokenize_config: TokenizeConfig
) -> None:
    known = Record(1, "a", ("a man", "he walks", "a boy"), "train", back_translated=("one man", "", "a child in red"))
    store = made(tmp_path / "data", known, Record(2, "b", ("a woman",), "test"))
    info = write_tokens(store, tokenize_config, tmp_path / "tokens")
    tokens = TokenStore.open(tmp_path / "tokens")
    rows, present = tokens.twins(np.array([3, 2, 0, 1, 2]))
    length = tokens.text_length
    texts = tokenizer.encode(["one man", "a child in red"], length)
    nothing = np.zeros(length)
    np.testing.assert_array_equal(rows, [nothing, texts[1], texts[0], nothing, texts[1]])
    assert (rows.dtype, present.tolist()) == (np.uint16, [False, True, True, False, True])
    assert info["sha256"]["twin_ids.npy"] == hashlib.sha256((tmp_path / "tokens/twin_ids.npy").read_bytes()).hexdigest()


def test_without_back_translated_captions_none_is_there(tokens: TokenStore) -> None:
    rows, present = tokens.twins(np.array([3, 0]))
    assert not (tokens.root / "twin_ids.npy").exists()
    assert (rows.shape, rows.dtype, present.tolist()) == ((2, 16), np.uint16, [False, False])
    assert not rows.any()


def test_the_fingerprint_covers_back_translated_captions(tmp_path: Path, tokenize_config: TokenizeConfig) -> None:
    found = set()
    for twin in ("one man", "two men"):
        store = made(tmp_path / f"data {twin}", Record(1, "a", ("a man",), "train", back_translated=(twin,)))
        found.add(write_tokens(store, tokenize_config, tmp_path / f"tokens {twin}")["fingerprint"])
    assert len(found) == 2


def test_damaged_back_translated_captions_are_refused(tmp_path: Path, tokenize_config: TokenizeConfig) -> None:
    store = made(tmp_path / "data", Record(1, "a", ("a man",), "train", back_translated=("one man",)))
    write_tokens(store, tokenize_config, tmp_path / "tokens")
    (tmp_path / "tokens" / "twin_ids.npy").unlink()
    with pytest.raises(UserError, match=r"twin_ids\.npy: missing; run the tokenize stage again"):
        TokenStore.open(tmp_path / "tokens")


def test_data_without_a_training_split_have_tokens_but_no_masking_cache(
    tmp_path: Path, tokenizer: Tokenizer, tokenize_config: TokenizeConfig
) -> None:
    store = made(tmp_path / "data", Record(7, "a", ("a man", "he walks"), "test"))
    write_tokens(store, tokenize_config, tmp_path / "tokens")
    tokens = TokenStore.open(tmp_path / "tokens")
    np.testing.assert_array_equal(tokens.caption_ids, tokenizer.encode(["a man", "he walks"], tokens.text_length))
    assert tokens.mask_draws == 0
    assert sorted(path.name for path in tokens.root.iterdir()) == ["caption_ids.npy", "tokens.json"]
    assert tokens.settings == tokenize_config.model_dump()


def test_captions_of_up_to_248_tokens_are_kept_and_masked(
    tmp_path: Path, tokenizer: Tokenizer, tokenize_config: TokenizeConfig
) -> None:
    long = " ".join(f"{word} coat" for word in ["red", "blue", "green"] * 50)
    store = made(tmp_path / "data", Record(1, "a", (long,), "train"))
    config = tokenize_config.model_copy(update={"text_length": 248})
    assert write_tokens(store, config, tmp_path / "tokens")["longest_caption"] == 248
    tokens = TokenStore.open(tmp_path / "tokens")
    assert tokens.caption_ids[0].tolist() == [START_ID, *tokenizer.words(long)[:246], END_ID]
    expected = mask_tokens(tokens.caption_ids, np.random.default_rng([0, 1]), 0.15, 0.8, 0.1)
    masked = tokens.masked(np.array([0]), 2)
    np.testing.assert_array_equal(masked.mlm_ids, expected.mlm_ids)
    np.testing.assert_array_equal(masked.mlm_labels, np.where(expected.chosen, tokens.caption_ids, 0))
    assert masked.mlm_labels[0, 77:].any()


def test_missing_tokens_name_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the tokenize stage"):
        TokenStore.open(tmp_path / "nothing")


def test_truncated_tokens_are_refused(store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path) -> None:
    write_tokens(store, tokenize_config, tmp_path / "cut")
    path = tmp_path / "cut" / "mlm_ids.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged tokens"):
        TokenStore.open(tmp_path / "cut")


@pytest.mark.parametrize("row", [-1, 1000, 10**30])
def test_masks_of_captions_that_do_not_exist_are_refused(
    store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path, row: int
) -> None:
    write_tokens(store, tokenize_config, tmp_path / "tokens")
    path = tmp_path / "tokens" / "tokens.json"
    info = json.loads(path.read_text())
    write_record(path, info | {"first_training_row": row})
    with pytest.raises(UserError, match=r"tokens\.json: damaged \(first_training_row"):
        TokenStore.open(tmp_path / "tokens")


def test_every_damaged_byte_of_tokens_gives_a_message(
    store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path
) -> None:
    root = tmp_path / "tokens"
    write_tokens(store, tokenize_config, root)
    for path in root.glob("*.npy"):
        whole = path.read_bytes()
        for position in [*range(128), len(whole) - 1]:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
            with pytest.raises(UserError, match=r"damaged.*; run the tokenize stage again"):
                TokenStore.open(root)
        path.write_bytes(whole)


def test_a_folder_of_something_else_is_not_replaced(
    store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a folder of tokens"):
        write_tokens(store, tokenize_config, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "precious"
