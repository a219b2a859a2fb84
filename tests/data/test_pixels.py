import pytest
import torch

from msgm.data import dequantise, quantise

COUNTS = [2, 10, 17, 256]


def every_level(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("u", [1e-5, 0.5, 0.9999])
def test_quantise_inverts_dequantise_at_every_level(count, u):
    levels = every_level(count)
    assert torch.equal(quantise(dequantise(levels, count, u), count), levels)


@pytest.mark.parametrize("count", COUNTS)
def test_quantise_inverts_dequantise_under_random_noise(count):
    levels = every_level(count).repeat(200)
    u = torch.rand(levels.shape, generator=torch.Generator().manual_seed(0)).clamp_max(0.9999)
    assert torch.equal(quantise(dequantise(levels, count, u), count), levels)


@pytest.mark.parametrize("count", COUNTS)
def test_dequantised_levels_fill_the_range_from_minus_one_to_one(count):
    levels = every_level(count)
    assert dequantise(levels, count, 0.0).min() == -1
    assert dequantise(levels, count, 0.0).max() < 1
    assert dequantise(levels, count, 0.9999).max() <= 1


def test_without_noise_a_level_goes_to_the_centre_of_its_bin():
    assert dequantise(torch.tensor([0, 1]), 2).tolist() == [-0.5, 0.5]


def test_numbers_outside_the_range_go_to_the_nearest_level():
    assert quantise(torch.tensor([-3.0, -1.0, 1.0, 7.0]), 17).tolist() == [0, 0, 16, 16]


def test_quantised_levels_are_uint8():
    assert quantise(torch.zeros(3), 256).dtype == torch.uint8
