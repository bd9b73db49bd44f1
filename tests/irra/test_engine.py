"""The engine: free text to ranked pictures as by hand, and pictures to captions."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from irra.checkpoint import model_fingerprint, save_model, save_weights
from irra.data.augment import normalise
from irra.data.images import load_image
from irra.data.masking import END_ID
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.model import IRRA
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.search.engine import MAX_QUERY_CHARACTERS, SearchEngine, clean_query
from irra.search.pictures import to_pixels
from irra.utils.errors import UserError
from tests.models import small_model


def save(folder: Path, model: IRRA) -> Path:
    save_weights(model, folder.with_suffix(".safetensors"))
    save_model(folder, folder.with_suffix(".safetensors"), model.spec, {})
    return folder


@pytest.fixture(scope="module")
def folders(store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of random weights, and its index of the toy data's test split."""
    root = tmp_path_factory.mktemp("engine")
    model = small_model().eval()
    save(root / "model", model)
    index_split(store, "test", Encoder(model), model_fingerprint(root / "model"), root / "index", "float32", 3)
    return root / "model", root / "index"


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path]) -> SearchEngine:
    return SearchEngine.open(*folders, device="cpu")


def test_hits_are_those_of_a_full_similarity_matrix(
    engine: SearchEngine, store: PreparedStore, tokens: TokenStore
) -> None:
    captions, images = store.caption_ids("test")[:5], store.image_ids("test")
    with torch.inference_mode():
        texts = engine.model.encode_text(torch.from_numpy(tokens.caption_ids[captions].astype(np.int64)))
        pictures = engine.model.encode_image(normalise(torch.from_numpy(store.pixels(images))))
    similarity = F.normalize(texts, dim=1) @ F.normalize(pictures, dim=1).T
    expected = similarity.topk(4, dim=1)
    rankings = engine.search([store.captions[i] for i in captions], 4)
    for hits, scores, rows in zip(rankings, expected.values, expected.indices.tolist(), strict=True):
        assert [hit.rank for hit in hits] == [1, 2, 3, 4]
        np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
        assert [hit.row for hit in hits] == rows
        assert [hit.path for hit in hits] == [store.image_paths[images[row]] for row in rows]
        assert [hit.pid for hit in hits] == [store.image_pids[images[row]] for row in rows]


def test_a_query_is_tokenized_as_in_training_and_cut_to_the_model_s_length(
    engine: SearchEngine, store: PreparedStore, tokens: TokenStore
) -> None:
    long = " ".join(["red jekyll"] * 20)
    ids = engine.encoder.tokenize([long, store.captions[3]])
    assert ids.shape[1] == engine.model.spec.text_length == tokens.text_length
    assert ids[0, -1] == END_ID
    assert ids[1].tolist() == tokens.caption_ids[3].tolist()


def test_captions_of_any_length_are_encoded_in_order_as_each_alone(engine: SearchEngine) -> None:
    texts = [" ".join(["red", "above", "blue", "in", "a", "hall"][: 1 + i % 6]) + " coat" * (i % 4) for i in range(23)]
    alone = np.concatenate([engine.encoder.texts([text]) for text in texts])
    np.testing.assert_allclose(engine.encoder.texts(texts, batch_size=5), alone, atol=1e-5)


def test_what_is_called_unread_changes_nothing_and_all_before_it_does(engine: SearchEngine) -> None:
    query = " ".join(["red jekyll"] * 20)
    unread = engine.unread(query)
    read = query.removesuffix(unread).rstrip()
    assert unread
    assert engine.unread(read) == ""
    (whole,), (cut,), (shorter,) = (engine.search([text], 3) for text in (query, read, read.rsplit(" ", 1)[0]))
    assert whole == cut != shorter


def test_more_hits_than_pictures_are_all_pictures(engine: SearchEngine) -> None:
    (hits,) = engine.search(["red"], 10_000)
    assert sorted(hit.row for hit in hits) == list(range(engine.gallery.size))


def test_many_queries_at_once_find_what_each_finds_alone(engine: SearchEngine) -> None:
    queries = [f"{colour} above {other}" for colour in ("red", "green") for other in ("blue", "a yellow hall")] * 20
    together = engine.search(queries, 2)
    alone = [engine.search([query], 2)[0] for query in queries[:4]]
    assert [[hit.row for hit in hits] for hits in together[:4]] == [[hit.row for hit in hits] for hits in alone]
    assert [hit.row for hit in together[76]] == [hit.row for hit in alone[0]]  # in another batch
    assert len(together) == 80


def test_no_query_gives_no_ranking(engine: SearchEngine) -> None:
    assert engine.search([], 3) == []


def test_threads_find_what_one_finds(engine: SearchEngine) -> None:
    queries = ["red above blue", "a person in green", "yellow in a shop"] * 8
    expected = [engine.search([query], 3) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: engine.search([query], 3), queries)) == expected


def test_captions_of_a_picture_are_the_nearest_different_ones(engine: SearchEngine, store: PreparedStore) -> None:
    texts = list(dict.fromkeys(store.captions[i] for i in store.caption_ids("test")))
    pixels = store.pixels(store.image_ids("test")[2:3])
    similarity = (
        F.normalize(torch.from_numpy(engine.encoder.images(pixels)), dim=1)
        @ F.normalize(torch.from_numpy(engine.encoder.texts(texts)), dim=1).T
    )
    expected = similarity[0].topk(3)
    hits = engine.captions_of(Image.fromarray(pixels[0]), 3)
    assert [hit.caption for hit in hits] == [texts[row] for row in expected.indices]
    np.testing.assert_allclose([hit.score for hit in hits], expected.values, atol=1e-5)
    assert [hit.rank for hit in hits] == [1, 2, 3]


@pytest.mark.parametrize("name", ["turned.jpg", "transparent.png", "palette.gif", "deep.png"])
def test_an_opened_picture_becomes_the_pixels_of_its_file(tmp_path: Path, name: str) -> None:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        rgb.save(tmp_path / name, exif=exif)
    elif name == "transparent.png":
        rgb.putalpha(100)
        rgb.save(tmp_path / name)
    elif name == "deep.png":
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(40, 30) * 50).save(tmp_path / name)
    else:
        rgb.save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(to_pixels(image, (20, 10)), load_image(tmp_path / name, (20, 10)))


def test_a_truncated_or_huge_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with Image.open(path) as image, pytest.raises(UserError, match="cannot be read"):
        to_pixels(image, (20, 10))
    with pytest.raises(UserError, match="9000 x 9000 pixels, more than"):
        to_pixels(Image.new("1", (9000, 9000)), (20, 10))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a man\n\twith\x00a \u2003 hat\x9f ", "a man with a hat"),
        ("caf\u00e9 \u886c\u886b \U0001f9e5", "caf\u00e9 \u886c\u886b \U0001f9e5"),
        ("half \ud83d a pair", "half a pair"),
        ("x" * MAX_QUERY_CHARACTERS + "   ", "x" * MAX_QUERY_CHARACTERS),
    ],
)
def test_a_query_is_cleaned(text: str, cleaned: str) -> None:
    assert clean_query(text) == cleaned


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00\x1b", "\u200b\u2060", "\u3000"])
def test_a_query_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the query is empty"):
        clean_query(text)


def test_a_query_that_is_too_long_is_refused() -> None:
    with pytest.raises(UserError, match=f"2001 characters, more than the {MAX_QUERY_CHARACTERS} allowed"):
        clean_query("x" * 2001)


def test_the_empty_query_among_several_is_named(engine: SearchEngine) -> None:
    with pytest.raises(UserError, match="query 2 is empty"):
        engine.search(["red", " ", "blue"], 3)


def test_a_number_of_results_below_one_is_refused(engine: SearchEngine) -> None:
    with pytest.raises(UserError, match="top_k: 0"):
        engine.search(["red"], 0)


def test_an_index_of_another_model_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = save(tmp_path / "other", small_model(seed=1))
    with pytest.raises(UserError, match=f"{model_fingerprint(folders[0])[:12]}.*{model_fingerprint(other)[:12]}"):
        SearchEngine.open(other, folders[1], device="cpu")


def test_a_missing_model_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: missing"):
        SearchEngine.open(tmp_path / "nowhere", folders[1], device="cpu")


def test_a_query_of_several_sentences_is_the_mean_of_their_unit_embeddings(engine: SearchEngine) -> None:
    said = ["red above blue", "a person in green and a hall", "yellow"]
    unit = F.normalize(torch.from_numpy(engine.encoder.texts(said)), dim=1)
    mean = F.normalize(unit.mean(dim=0), dim=0)
    images = torch.from_numpy(np.array(engine.gallery.embeddings))
    several, alone = engine.search([said, said[0]], engine.gallery.size)
    expected = (images * mean).sum(dim=1)
    assert [hit.row for hit in several] == expected.argsort(descending=True, stable=True).tolist()
    np.testing.assert_allclose([hit.score for hit in several], expected.sort(descending=True).values, atol=1e-5)
    assert [hit.row for hit in alone] == [hit.row for hit in engine.search([said[0]], engine.gallery.size)[0]]


def test_a_list_of_one_sentence_is_that_sentence(engine: SearchEngine) -> None:
    assert engine.search([["red above blue"]], 3) == engine.search(["red above blue"], 3)
