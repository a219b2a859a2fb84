import numpy as np
import pytest
import torch

from msgm.classifier.config import load_config as classifier_config
from msgm.data import DATASETS, load_dataset
from msgm.data.measures import measured
from msgm.errors import UserError

SLANTED = {"slanted": {"measure": "slant", "above": 0.75}}


def leaning(shear, size=41, width=2.0):
    """A bar that leans to the right by ``shear`` pixels a pixel upwards, of 256 levels."""
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    bar = ((x + shear * y).abs() <= width) & (y.abs() <= size // 4)
    return (255 * bar).to(torch.uint8)[None, None]


@pytest.mark.parametrize("shear", [-0.7, 0.0, 0.4])
def test_the_slant_is_the_shear_of_a_leaning_bar_wherever_it_stands(shear):
    bar = leaning(shear)
    assert measured("slant", bar, 256) == pytest.approx(shear, abs=0.03)
    assert measured("slant", bar.roll((3, -5), (2, 3)), 256) == pytest.approx(measured("slant", bar, 256))


def test_ink_is_the_mean_level_over_channels():
    grey = torch.tensor([0, 16], dtype=torch.uint8)[None, :, None, None].expand(1, 2, 4, 4)
    assert measured("ink", grey, 17) == pytest.approx(0.5)


@pytest.mark.parametrize("width", [2, 4])
def test_the_stroke_is_the_width_of_a_long_line(width):
    line = torch.zeros(1, 1, 60, 60, dtype=torch.uint8)
    line[..., 5:55, 20 : 20 + width] = 255
    assert measured("stroke", line, 256) == pytest.approx(width, rel=0.1)


def test_a_blank_picture_has_neither_slant_nor_stroke():
    blank = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    for name in ("slant", "ink", "stroke"):
        assert measured(name, blank, 17).tolist() == [0, 0]


def test_the_quantile_is_that_of_the_training_items_alone():
    settings = DATASETS.build({"name": "digits", "attributes": SLANTED})
    digits = load_dataset(settings)
    numbers, train = digits.numbers("slant", np.arange(len(digits))), settings.parts(digits)["train"]
    assert digits.measured["slanted"].threshold == np.quantile(numbers[train], 0.75)
    assert np.array_equal(digits.attributes["slanted"], numbers > np.quantile(numbers[train], 0.75))
    assert (
        digits.measured["slanted"].close(numbers).sum()
        == (np.abs(numbers - np.quantile(numbers[train], 0.75)) < numbers[train].std() / 10).sum()
    )


def test_copies_do_not_move_the_quantile():
    train = DATASETS.build({"name": "digits"}).parts(load_dataset("digits"))["train"]
    plain = load_dataset({"name": "digits", "attributes": SLANTED})
    more = load_dataset({"name": "digits", "attributes": SLANTED, "repeat": {"90": [int(train[0])]}})
    assert more.measured == plain.measured


def test_the_lower_part_is_below_its_quantile():
    digits = load_dataset({"name": "digits", "attributes": {"faint": {"measure": "ink", "below": 0.1}}})
    faint = digits.attributes["faint"]
    assert 0.05 < faint.mean() < 0.15
    assert digits.items[faint].float().mean((1, 2, 3)).max() < digits.items[~faint].float().mean((1, 2, 3)).min() + 1e-4


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"measure": "slant"}, "data.attributes.x: give one of above and below"),
        ({"measure": "slant", "above": 0.5, "below": 0.5}, "data.attributes.x: give one of above and below"),
        ({"measure": "slant", "above": 1.0}, "data.attributes.x: the quantile must lie between 0 and 1, got 1.0"),
        (
            {"measure": "slope", "above": 0.5},
            "data.attributes.x.measure: expected one of slant, ink, stroke, got 'slope'",
        ),
    ],
)
def test_a_cut_that_cannot_be_made_is_refused(attribute, message):
    with pytest.raises(UserError, match=message):
        load_dataset({"name": "digits", "attributes": {"x": attribute}})


def test_vectors_are_not_measured_and_classifiers_do_not_read_it():
    with pytest.raises(UserError, match="data.attributes.slanted: attributes are measured from pictures"):
        load_dataset({"name": "gaussians", "attributes": SLANTED})
    with pytest.raises(UserError, match="data.attributes is read by generators alone"):
        classifier_config(None, ["data.attributes.slanted.measure=slant", "data.attributes.slanted.above=0.75"])
