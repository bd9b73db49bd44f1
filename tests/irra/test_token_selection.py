"""Token selection (TSE): equal to RDE's released code where that is right, and defined where it is not."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from irra.model import IRRA, ModelSpec, build_model
from irra.model.token_selection import SelectionHead, select_patches, select_words
from irra.objective import compute_losses

PIDS = torch.tensor([1, 0, 1, 2, 3, 2])
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": [32, 16], "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 200, "width": 64, "heads": 1, "layers": 2},
}
# The released code's names of the heads' parts; its `linear` of images and last batch norms are never used.
RELEASED = {
    "token_selection.image.linear": "visul_emb_layer.fc",
    "token_selection.image.hidden": "visul_emb_layer.mlp.layers.0",
    "token_selection.image.norm": "visul_emb_layer.mlp.bns.0",
    "token_selection.image.output": "visul_emb_layer.mlp.layers.1",
    "token_selection.text.linear": "texual_emb_layer.linear",
    "token_selection.text.hidden": "texual_emb_layer.mlp.layers.0",
    "token_selection.text.norm": "texual_emb_layer.mlp.bns.0",
    "token_selection.text.output": "texual_emb_layer.mlp.layers.1",
}
# Losses and similarities of RDE's released code (b3fd396) on the model and the batches below, run on a CPU in float32.
LOSSES = {
    ("frozen", "long"): (2.02870536, 1.73746157),
    ("batch", "long"): (2.02870536, 1.76972055),
    ("frozen", "short"): (1.714818, 2.07404399),
}
GRADIENT_NORMS = {
    "clip.visual.conv1.weight": 6.11397362,
    "clip.token_embedding.weight": 5.30493927,
    "token_selection.image.norm.weight": 0.0464419052,
    "token_selection.image.hidden.weight": 0.902747333,
    "token_selection.text.linear.weight": 3.65323734,
}
SIMILARITIES = [0.147387341, 0.197713464, 0.154408485, 0.203694671, 0.174383774, 0.127200797]  # of the first caption
CAPTIONS = {
    "long": [
        [116, 77, 184, 106, 154, 43, 158, 161, 32],
        [149, 177, 13, 130, 114],
        [121, 25, 25, 87, 155, 44, 76, 196, 28, 124, 19, 5, 118, 84],
        [172, 191, 169, 15],
        [164, 70, 155, 178, 25, 168, 186],
        [132, 92, 100, 32, 170, 181, 2, 125, 108, 54, 11],
    ],
    "short": [
        [98, 59, 82, 179, 171, 103, 22, 182, 35],
        [172, 150],
        [50, 64, 68, 4, 187, 169, 183, 103, 98, 112, 18, 64, 19, 45],
        [179],
        [79, 6, 83, 25, 88, 25, 39],
        [14, 11, 70],
    ],
}


def released_model(norm: str = "frozen") -> IRRA:
    """The model of the recording, whose weights follow from the released names."""
    spec = ModelSpec(ARCHITECTURE, (32, 16), 8, 16, 0.02, None, None, token_selection=0.3, tse_norm=norm)
    model = build_model(spec)
    weights = model.state_dict()
    for name, value in weights.items():
        if "running" in name or "tracked" in name:
            continue
        owner, _, last = name.rpartition(".")
        released = f"{RELEASED[owner]}.{last}" if owner in RELEASED else name.replace("clip.", "base_model.", 1)
        random = np.random.RandomState(zlib.crc32(released.encode()) & 0x7FFFFFFF)
        drawn = random.standard_normal(tuple(value.shape)).astype(np.float32) * np.float32(0.05)
        is_norm = last == "weight" and (".ln_" in name or ".norm" in name)
        weights[name] = torch.from_numpy(drawn + np.float32(is_norm))
    model.load_state_dict(weights)
    return model.train()


def images(seed: int = 130, count: int = 6) -> Tensor:
    drawn = np.random.RandomState(seed).standard_normal((count, 3, 32, 16))
    return torch.from_numpy(drawn.astype(np.float32))


def rows(captions: list[list[int]], length: int = 16) -> Tensor:
    ids = torch.zeros(len(captions), length, dtype=torch.long)
    for row, words in zip(ids, captions, strict=True):
        row[: len(words) + 2] = torch.tensor([198, *words, 199])
    return ids


def batch_of(captions: str) -> dict[str, Tensor]:
    ids = rows(CAPTIONS[captions])
    return {"images": images(), "caption_ids": ids, "pids": PIDS, "image_ids": torch.arange(6)}


@pytest.mark.parametrize(("norm", "captions"), LOSSES)
def test_the_losses_are_those_of_the_released_code(norm: str, captions: str) -> None:
    total = compute_losses(released_model(norm), batch_of(captions), "tal")["tal"].item()
    assert total == pytest.approx(sum(LOSSES[norm, captions]), abs=2e-5)


def test_the_gradients_are_those_of_the_released_code() -> None:
    model = released_model()
    compute_losses(model, batch_of("long"), "tal")["total"].backward()  # type: ignore[no-untyped-call]
    norms = {name: value.grad.norm().item() for name, value in model.named_parameters() if value.grad is not None}
    # the recording's are of its sum of both losses; names are this project's
    found = {name: norms[name] for name in GRADIENT_NORMS}
    assert found == pytest.approx(GRADIENT_NORMS, rel=1e-4)


@torch.no_grad()
def test_similarities_are_the_means_of_both_features_as_in_the_released_evaluation() -> None:
    model = released_model().eval()
    found = model.encode_text(rows(CAPTIONS["long"])[:1]) @ model.encode_image(images(134, 12)).T
    assert found[0, :6].tolist() == pytest.approx(SIMILARITIES, abs=1e-5)


@torch.no_grad()
def test_each_part_of_the_embedding_has_unit_length_before_it_is_divided() -> None:
    model = released_model().eval()
    for embedding in (model.encode_text(rows(CAPTIONS["short"])), model.encode_image(images())):
        lengths = [part.norm(dim=1) for part in embedding.split(list(model.embedding_parts), dim=1)]
        assert torch.allclose(torch.stack(lengths), torch.tensor(0.5**0.5))


def slow_head(head: SelectionHead, tokens: Tensor, kept: Tensor) -> Tensor:
    """One token at a time, with the batch norm as an affine map."""
    features = []
    for row, mask in zip(tokens, kept, strict=True):
        outputs = []
        for token in row[mask]:
            unit = token / token.norm()
            hidden = head.hidden(unit) / (1 + head.norm.eps) ** 0.5 * head.norm.weight + head.norm.bias
            outputs.append(head.output(hidden.clamp(min=0)) + head.linear(unit))
        features.append(torch.stack(outputs).amax(dim=0) if outputs else torch.zeros(head.linear.out_features))
    return torch.stack(features)


def head_and_tokens(by_batch: bool) -> tuple[SelectionHead, Tensor, Tensor]:
    torch.manual_seed(0)
    head, tokens = SelectionHead(8, by_batch), torch.randn(4, 5, 8)
    torch.nn.init.normal_(head.norm.weight)
    torch.nn.init.normal_(head.norm.bias)
    kept = torch.arange(5) < torch.tensor([[5], [2], [1], [0]])  # also a caption with one word, and one with none
    return head, tokens, kept


def test_a_head_equals_a_slow_loop() -> None:
    head, tokens, kept = head_and_tokens(by_batch=False)
    assert torch.allclose(head(tokens, kept), slow_head(head, tokens, kept), atol=1e-6)


def test_statistics_of_a_batch_are_those_of_the_words_alone() -> None:
    head, tokens, kept = head_and_tokens(by_batch=True)
    plain = torch.nn.BatchNorm1d(8)
    plain.load_state_dict(head.norm.state_dict())
    expected = plain(head.hidden(F.normalize(tokens[kept], dim=-1)))
    normalised = head._normalised(head.hidden(F.normalize(tokens, dim=-1)), kept)[kept]
    assert torch.allclose(normalised, expected, atol=1e-6)
    for name, value in plain.state_dict().items():
        assert torch.allclose(head.norm.state_dict()[name], value), name


def test_frozen_statistics_stay_as_they_were() -> None:
    head, tokens, kept = head_and_tokens(by_batch=False)
    head(tokens, kept)
    assert head.norm.running_mean.tolist() == [0.0] * 8  # type: ignore[union-attr]


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_padding_changes_nothing(norm: str) -> None:
    """A batch with longer rows has the same losses, gradients and averages."""
    results = []
    for length in (16, 9):
        model, batch = released_model(norm), batch_of("short")
        ids = rows([words for words in CAPTIONS["short"] if len(words) <= 7], length)
        batch = {name: value[: len(ids)] for name, value in batch.items()} | {"caption_ids": ids}
        compute_losses(model, batch, "tal")["total"].backward()  # type: ignore[no-untyped-call]
        assert model.token_selection is not None
        text = model.token_selection.text
        results.append([text.hidden.weight.grad, text.norm.running_mean, model.clip.visual.conv1.weight.grad])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_captions_of_one_word_and_of_none_train() -> None:
    model, batch = released_model("batch"), batch_of("short")
    batch["caption_ids"] = rows([[5], [], [7, 8], [9], [], [3, 4, 5]])
    compute_losses(model, batch, "tal")["total"].backward()  # type: ignore[no-untyped-call]
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    assert model.eval().encode_text(rows([[]]))[0, 32:].tolist() == [0.0] * 64


def test_only_words_are_selected_by_attention() -> None:
    attention = torch.tensor([[0.5, 0.1, 0.0, 0.3, 0.1, 0.0], [0.2, 0.3, 0.5, 0.0, 0.0, 0.0]])
    chosen, kept = select_words(attention, torch.tensor([[4], [2]]), 3)
    assert chosen[0].tolist() == [3, 1, 2]
    assert chosen[1, 0].item() == 1
    assert kept.tolist() == [[True, True, True], [True, False, False]]


def test_the_share_of_the_patches_is_that_of_the_released_code() -> None:
    assert select_patches(torch.rand(2, 193), 0.3).shape == (2, 57)


def test_a_word_piece_with_the_id_of_padding_is_a_word() -> None:
    ids = rows([[5, 0, 7]])
    _, kept = select_words(torch.full((1, 16), 0.1), ids.argmax(dim=1, keepdim=True), 4)
    assert kept.sum().item() == 3


@torch.no_grad()
def test_features_of_selected_tokens_are_the_same_where_all_tokens_are_computed() -> None:
    """As MLM needs them."""
    model = released_model().eval()
    ids = rows(CAPTIONS["long"])
    for one, other in (
        (model._image(images()), model._image(images(), all_tokens=True)),
        (model._text(ids), model._text(ids, all_tokens=True)),
    ):
        assert one.selected is not None
        assert other.selected is not None
        assert torch.allclose(one.feature, other.feature, atol=1e-5)
        assert torch.allclose(one.selected[one.kept], other.selected[one.kept], atol=1e-5)
