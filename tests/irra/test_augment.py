"""Batch augmentation against torchvision's transforms, and a slow form of its own, with the same random choices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from irra.data.augment import CLIP_MEAN, CLIP_STD, PADDING, Choices, Normaliser, crop, draw_choices, normalise

HEIGHT, WIDTH = 48, 24
CPU = torch.device("cpu")


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


def slow_normalise(pixels: Tensor) -> Tensor:
    """Every step a new tensor, with the colours innermost."""
    return ((pixels.float() / 255.0 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(0, 3, 1, 2)


def slow_augment(pixels: Tensor, choices: Choices) -> Tensor:
    """Every pixel looked up by its row and column, and compared with its rectangle."""
    batch, height, width, _ = pixels.shape
    rows = torch.arange(height) + choices.top[:, None]
    columns = torch.arange(width) + choices.left[:, None]
    columns = torch.where(choices.flip[:, None], width + 2 * PADDING - 1 - columns, columns)
    padded = F.pad(pixels, (0, 0, PADDING, PADDING, PADDING, PADDING))
    images = slow_normalise(padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]])
    top, left, h, w = choices.erase[:, :, None, None].unbind(1)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    erased = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    return torch.where(erased[:, None], torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), images)


def augmented(pixels: Tensor, choices: Choices) -> Tensor:
    return Normaliser(CPU)(torch.from_numpy(crop(pixels.numpy(), choices)), choices.erase)


def test_augmented_images_equal_torchvision_s(pixels: Tensor, choices: Choices) -> None:
    assert choices.flip.any()
    assert (choices.erase[:, 2] > 0).any()
    expected = torch.stack([torchvision_pipeline(pixels, choices, index) for index in range(16)])
    torch.testing.assert_close(augmented(pixels, choices), expected)


def test_augmented_images_equal_those_of_the_slow_form_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (200, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    choices = draw_choices(200, HEIGHT, WIDTH, generator)
    assert torch.equal(augmented(pixels, choices), slow_augment(pixels, choices))


def test_every_byte_is_normalised_as_by_the_slow_form_bit_for_bit() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    planes = pixels.permute(0, 3, 1, 2).contiguous()
    assert torch.equal(Normaliser(CPU)(planes), slow_normalise(pixels))
    assert torch.equal(normalise(pixels), slow_normalise(pixels))


def test_both_forms_of_erasing_are_equal(pixels: Tensor, choices: Choices) -> None:
    normaliser, planes = Normaliser(CPU), torch.from_numpy(crop(pixels.numpy(), choices))
    assert torch.equal(normaliser.at_once(planes, choices.erase), normaliser.by_image(planes, choices.erase))


def test_some_of_a_batch_s_choices_augment_the_same_images_alike(pixels: Tensor, choices: Choices) -> None:
    some = np.array([5, 2, 11, 2])
    assert torch.equal(augmented(pixels[some], choices[some]), augmented(pixels, choices)[some])


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
    assert torch.equal(augmented(pixels, choices), augmented(pixels, again))
