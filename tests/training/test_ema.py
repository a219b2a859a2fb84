import pytest
import torch
from torch import nn

from msgm.training import EMA


def linear(value: float = 0.0) -> nn.Linear:
    network = nn.Linear(3, 2)
    fill(network, value)
    return network


def fill(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def average(ema: EMA) -> float:
    return ema.state()["weight"][0, 0].item()


def test_the_first_update_follows_the_weights_by_nine_tenths():
    network = linear()
    ema = EMA(network, 0.999)
    fill(network, 1.0)
    ema.update()
    assert average(ema) == pytest.approx(0.9)


def test_the_decay_warms_up_to_its_value():
    network = linear()
    ema, expected = EMA(network, 0.5), 0.0
    for n in range(30):
        fill(network, float(n))
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert average(ema) == pytest.approx(expected)


def test_a_block_sees_the_averages_and_then_the_weights_are_back():
    network = linear()
    ema = EMA(network, 0.9)
    fill(network, 5.0)
    with ema.applied():
        assert torch.equal(network.weight, torch.zeros(2, 3))
    assert torch.equal(network.weight, torch.full((2, 3), 5.0))


def test_the_weights_are_back_after_an_exception():
    network = linear()
    ema = EMA(network, 0.9)
    fill(network, 5.0)
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        raise RuntimeError("inside")
    assert torch.equal(network.bias, torch.full((2,), 5.0))


def test_the_averages_are_not_touched_by_a_block():
    network = linear()
    ema = EMA(network, 0.9)
    with ema.applied():
        fill(network, 7.0)
    assert average(ema) == 0.0


def test_a_restored_average_goes_on_as_the_saved_one():
    network = linear()
    ema = EMA(network, 0.9)
    for value in (1.0, 2.0, 3.0):
        fill(network, value)
        ema.update()
    saved, updates = {name: tensor.clone() for name, tensor in ema.state().items()}, ema.updates
    again = EMA(linear(3.0), 0.9)
    again.load(saved, updates)
    ema.update()
    again.update()
    assert average(again) == average(ema)
    assert again.updates == 4


def test_averages_are_named_like_parameters():
    network = linear()
    assert EMA(network, 0.9).state().keys() == dict(network.named_parameters()).keys()


def test_weights_that_are_not_trained_have_no_average():
    network = linear()
    network.weight.requires_grad_(False)
    assert "weight" not in EMA(network, 0.9).state()
