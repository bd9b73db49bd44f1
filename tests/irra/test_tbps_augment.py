"""TBPS-CLIP's augmentation against torchvision: each transform with the same parameters, and what is drawn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomErasing, RandomResizedCrop, RandomRotation

from irra.data.tbps_augment import Adjust, Kind, Transforms, draw_transforms, transform

HEIGHT, WIDTH = 48, 32
DRAWN = 20_000  # images, with two transforms each


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def drawn() -> Transforms:
    return draw_transforms(DRAWN, 224, 224, torch.Generator().manual_seed(0))


def of_kind(drawn: Transforms, kind: Kind) -> Tensor:
    """The values of all transforms of a kind."""
    return drawn.values[drawn.kinds == kind]


def with_torchvision(image: Tensor, kind: int, values: list[float]) -> Tensor:
    """A single image, transformed by torchvision."""
    if kind == Kind.JITTER:
        adjust: dict[float, Callable[[Tensor, float], Tensor]] = {
            Adjust.BRIGHTNESS: TF.adjust_brightness,
            Adjust.CONTRAST: TF.adjust_contrast,
            Adjust.SATURATION: TF.adjust_saturation,
        }
        for which, factor in zip(values[:3], values[3:], strict=True):
            image = adjust[which](image, factor)
        return image
    top, left, height, width = map(int, values[:4])
    if kind == Kind.ROTATE:
        return TF.rotate(image, values[0])
    if kind == Kind.CROP:
        return TF.resized_crop(image, top, left, height, width, [HEIGHT, WIDTH], antialias=True)
    if kind == Kind.GREY:
        return TF.rgb_to_grayscale(image, num_output_channels=3)
    if kind == Kind.FLIP:
        return TF.hflip(image)
    return TF.erase(image, top, left, height, width, torch.zeros(())) if kind == Kind.ERASE else image


def choices_of(kind: Kind, number: int) -> Transforms:
    """Choices whose first transform is of one kind, and whose second is nothing."""
    drawn = draw_transforms(100 * number, HEIGHT, WIDTH, torch.Generator().manual_seed(1))
    rows = (drawn.kinds[:, 0] == kind).nonzero()[:number, 0].numpy()
    assert len(rows) == number
    chosen = drawn[rows]
    chosen.kinds[:, 1] = Kind.NOTHING
    return chosen


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
def test_a_transform_equals_torchvision_s(images: Tensor, kind: Kind) -> None:
    choices = choices_of(kind, len(images))
    ours = transform(images.clone(), choices.kinds, choices.values)
    values = choices.values[:, 0].tolist()
    theirs = torch.stack([with_torchvision(image, kind, value) for image, value in zip(images, values, strict=True)])
    # grids of places are rounded differently, so that a pixel halfway between two may come from either in a rotation
    wrong = ((ours - theirs).abs() > (2e-5 if kind == Kind.CROP else 1e-6)).float().mean()
    assert wrong <= (1e-4 if kind == Kind.ROTATE else 0.0)
    assert torch.equal(theirs, images) == (kind == Kind.NOTHING)


def test_an_image_undergoes_its_two_transforms_in_order(images: Tensor) -> None:
    choices = draw_transforms(len(images), HEIGHT, WIDTH, torch.Generator().manual_seed(3))
    ours = transform(images.clone(), choices.kinds, choices.values)
    for image, result, kinds, values in zip(images, ours, choices.kinds.tolist(), choices.values.tolist(), strict=True):
        expected = image
        for kind, value in zip(kinds, values, strict=True):
            expected = with_torchvision(expected, kind, value)
        assert ((result - expected).abs() > 1e-5).float().mean() <= 1e-3
    assert len(set(map(tuple, choices.kinds.tolist()))) > 15


def test_some_of_a_batch_s_choices_transform_the_same_images_alike(images: Tensor) -> None:
    choices, some = draw_transforms(len(images), HEIGHT, WIDTH, torch.Generator().manual_seed(4)), np.array([7, 2, 31])
    part, whole = choices[some], transform(images.clone(), choices.kinds, choices.values)
    assert torch.equal(transform(images[some], part.kinds, part.values), whole[some])


def test_kinds_are_drawn_with_replacement_and_applied_with_their_probabilities(drawn: Transforms) -> None:
    shares = torch.bincount(drawn.kinds.flatten(), minlength=len(Kind)) / (2 * DRAWN)
    sixths = [1, 1, 1, 0.1, 0.5, 0.5, 0.9 + 0.5 + 0.5]
    assert (6 * shares).tolist() == pytest.approx(sixths, abs=0.05)
    both = (drawn.kinds == Kind.ROTATE).all(dim=1).float().mean()
    assert both == pytest.approx(1 / 36, abs=0.005)


def test_colour_jitter_is_drawn_as_torchvision_s(drawn: Transforms) -> None:
    torch.manual_seed(0)
    jitter = ColorJitter(0.1, 0.1, 0.1, 0)
    assert jitter.hue is None
    params = [ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, None) for _ in range(3000)]
    ours = of_kind(drawn, Kind.JITTER)
    orders, factors = ours[:, :3], ours[:, 3:]
    theirs = [tuple(i for i in order.tolist() if i < 3) for order, *_ in params]
    found = [tuple(order) for order in orders.long().tolist()]
    for order in set(theirs) | set(found):
        assert found.count(order) / len(found) == pytest.approx(theirs.count(order) / len(theirs), abs=0.03)
    expected = torch.tensor([factor for _, *some, _ in params for factor in some])
    assert_same_distribution(factors.flatten(), expected)


def test_rotation_is_drawn_as_torchvision_s(drawn: Transforms) -> None:
    torch.manual_seed(0)
    angles = [RandomRotation.get_params(RandomRotation(15).degrees) for _ in range(3000)]
    assert_same_distribution(of_kind(drawn, Kind.ROTATE)[:, 0], torch.tensor(angles))


@pytest.mark.parametrize("kind", [Kind.CROP, Kind.ERASE])
def test_rectangles_are_drawn_as_torchvision_s(drawn: Transforms, kind: Kind) -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, 224, 224)
    ratio = {Kind.CROP: [3 / 4, 4 / 3], Kind.ERASE: [0.3, 3.3]}[kind]
    if kind == Kind.CROP:
        params = [RandomResizedCrop.get_params(image, [0.9, 1.0], ratio) for _ in range(2000)]
    else:
        params = [RandomErasing.get_params(image, (0.1, 0.2), ratio, [0.0])[:4] for _ in range(2000)]
    theirs = torch.tensor(params, dtype=torch.float)
    ours = of_kind(drawn, kind)
    for column in range(4):
        assert_same_distribution(ours[:, column], theirs[:, column])
    assert_same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])


def assert_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Two samples whose largest distance between cumulated shares is that of chance (Kolmogorov-Smirnov, 0.01%)."""
    values = torch.cat([ours, theirs]).unique()
    shares = [torch.searchsorted(x.sort().values.contiguous(), values, right=True) / len(x) for x in (ours, theirs)]
    assert (shares[0] - shares[1]).abs().max() < 2.23 * math.sqrt(1 / len(ours) + 1 / len(theirs))


def test_crops_of_a_tall_image_keep_nine_tenths_of_it() -> None:
    crops = of_kind(draw_transforms(3000, 384, 128, torch.Generator().manual_seed(0)), Kind.CROP)
    top, left, height, width = crops[:, :4].unbind(1)
    assert (height * width / (384 * 128)).min() > 0.89
    assert (top + height).max() <= 384
    assert (left + width).max() <= 128
    assert height.min() < 360 < 384 == height.max()
