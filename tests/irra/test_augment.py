"""Batch augmentation against torchvision's transforms with the same random choices."""

import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from irra.data import augment
from irra.data.augment import CLIP_MEAN, CLIP_STD, PADDING, Choices, draw_choices, normalise

HEIGHT, WIDTH = 48, 24


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (16, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def choices() -> Choices:
    return draw_choices(16, HEIGHT, WIDTH, torch.Generator().manual_seed(1))


def torchvision_pipeline(pixels: Tensor, choices: Choices, index: int) -> Tensor:
    """The released order of transforms, one image at a time."""
    image = Image.fromarray(pixels[index].numpy())
    if choices.flip[index]:
        image = TF.hflip(image)
    image = TF.pad(image, [PADDING])
    image = TF.crop(image, int(choices.top[index]), int(choices.left[index]), HEIGHT, WIDTH)
    tensor = TF.normalize(TF.to_tensor(image), CLIP_MEAN, CLIP_STD)
    top, left, height, width = choices.erase[index].tolist()
    return TF.erase(tensor, top, left, height, width, torch.tensor(CLIP_MEAN).view(3, 1, 1)) if height else tensor


def test_augmented_images_equal_torchvision_s(pixels: Tensor, choices: Choices) -> None:
    assert choices.flip.any()
    assert (choices.erase[:, 2] > 0).any()
    expected = torch.stack([torchvision_pipeline(pixels, choices, index) for index in range(16)])
    torch.testing.assert_close(augment.augment(pixels, choices), expected)


def test_normalise_equals_torchvision_s(pixels: Tensor) -> None:
    expected = TF.normalize(TF.to_tensor(Image.fromarray(pixels[0].numpy())), CLIP_MEAN, CLIP_STD)
    torch.testing.assert_close(normalise(pixels)[0], expected)


def test_choices_have_the_published_distribution() -> None:
    choices = draw_choices(20_000, 384, 128, torch.Generator().manual_seed(0))
    top, left, height, width = choices.erase.unbind(1)
    erased = height > 0
    area = (height * width)[erased] / (384 * 128)
    assert choices.flip.float().mean() == pytest.approx(0.5, abs=0.02)
    assert sorted(set(choices.top.tolist())) == list(range(2 * PADDING + 1))
    assert choices.left.float().mean() == pytest.approx(PADDING, abs=0.15)
    assert erased.float().mean() == pytest.approx(0.5, abs=0.02)
    assert area.min() >= 0.019
    assert area.max() <= 0.41
    assert (top + height <= 384).all()
    assert (left + width <= 128).all()


def test_erased_rectangles_are_distributed_as_torchvision_s() -> None:
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    image = torch.zeros(3, 384, 128)
    theirs = [RandomErasing.get_params(image, (0.02, 0.4), (0.3, 3.3), [0.0])[:4] for _ in range(4000)]
    expected = torch.tensor(theirs, dtype=torch.float).mean(dim=0)
    choices = draw_choices(20_000, 384, 128, torch.Generator().manual_seed(0))
    ours = choices.erase[choices.erase[:, 2] > 0].float().mean(dim=0)
    torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.5)


def test_equal_seeds_augment_equally(pixels: Tensor, choices: Choices) -> None:
    again = draw_choices(16, HEIGHT, WIDTH, torch.Generator().manual_seed(1))
    assert torch.equal(augment.augment(pixels, choices), augment.augment(pixels, again))
