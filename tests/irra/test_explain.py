import numpy as np
import pytest
import torch

from irra.data.store import PreparedStore
from irra.search.explain import explain
from tests.models import small_model


@pytest.fixture(scope="module")
def pixels(store: PreparedStore) -> np.ndarray:
    return store.pixels(np.array([0]))[0]


def test_every_word_and_every_pixel_has_a_share(pixels: np.ndarray) -> None:
    found = explain(small_model().eval(), pixels, "a person in red")
    assert [word for word, _ in found.words] == ["a", "person", "in", "red"]
    assert found.heat.shape == (64, 32)
    assert 0.0 <= found.heat.min() <= found.heat.max() <= 1.0


def test_the_same_question_has_the_same_answer(pixels: np.ndarray) -> None:
    model = small_model().eval()
    first, second = (explain(model, pixels, "red above blue") for _ in range(2))
    assert first.words == second.words
    np.testing.assert_array_equal(first.heat, second.heat)


def test_the_model_is_only_read(pixels: np.ndarray) -> None:
    model = small_model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain(model, pixels, "red above blue")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_words_behind_the_cut_have_no_share(pixels: np.ndarray) -> None:
    found = explain(small_model().eval(), pixels, "red " * 14 + "no hat")
    assert [word for word, _ in found.words] == ["red"] * 14
    assert found.unread == "no hat"
