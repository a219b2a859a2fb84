import errno
import os
import resource
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from msgm.errors import RunError, UserError
from msgm.training.checkpoints import Training, checkpoints, load_checkpoint, save_checkpoint
from msgm.training.ema import EMA


def training(width: int = 3, seed: int = 0, steps: int = 2) -> Training:
    """Make a network, trained for ``steps`` steps."""
    torch.manual_seed(seed)
    network = nn.Linear(width, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    state = Training(network, optimiser, EMA(network, 0.9), step=steps, seconds=1.5)
    for _ in range(steps):
        step(state)
    return state


def step(state: Training) -> None:
    state.optimiser.zero_grad()
    state.network(torch.ones(1, state.network.in_features)).square().sum().backward()
    state.optimiser.step()
    state.ema.update()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_restored_checkpoint_goes_on_as_the_saved_training(tmp_path):
    saved, fresh = training(), training(seed=1, steps=0)
    load_checkpoint(save_checkpoint(tmp_path, saved), fresh)
    assert (fresh.step, fresh.seconds, fresh.ema.updates) == (2, 1.5, 2)
    step(saved)
    step(fresh)
    assert torch.equal(fresh.network.weight, saved.network.weight)
    assert torch.equal(fresh.ema.state()["weight"], saved.ema.state()["weight"])


def test_restored_averages_do_not_follow_the_file_or_the_weights(tmp_path):
    fresh = training(seed=1, steps=0)
    load_checkpoint(save_checkpoint(tmp_path, training()), fresh)
    kept = fresh.ema.state()["weight"].clone()
    with torch.no_grad():
        fresh.network.weight.add_(1.0)
    assert torch.equal(fresh.ema.state()["weight"], kept)


def test_two_checkpoints_at_most_are_kept_the_newest(tmp_path):
    state = training()
    for number in (3, 20, 100):
        state.step = number
        save_checkpoint(tmp_path, state)
    assert names(tmp_path) == ["step-00000020", "step-00000100"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000020", "step-00000100"]


def test_a_checkpoint_may_be_written_again(tmp_path):
    save_checkpoint(tmp_path, training(seed=1))
    path = save_checkpoint(tmp_path, training(seed=0))
    fresh = training(seed=5, steps=0)
    load_checkpoint(path, fresh)
    assert torch.equal(fresh.network.weight, training(seed=0).network.weight)


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path):
    path = save_checkpoint(tmp_path, training())
    assert names(path) == ["ema.safetensors", "network.safetensors", "optimiser.safetensors", "state.json"]


FILES = ["network.safetensors", "ema.safetensors", "optimiser.safetensors", "state.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "garbled", "missing"])
def test_a_damaged_checkpoint_is_refused_with_its_name(tmp_path, file, damage):
    path = save_checkpoint(tmp_path, training())
    if damage == "cut":
        (path / file).write_bytes((path / file).read_bytes()[:-3])
    elif damage == "garbled":
        (path / file).write_bytes(b"\x00" * 40)
    else:
        (path / file).unlink()
    with pytest.raises(UserError) as error:
        load_checkpoint(path, training(seed=1, steps=0))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot resume"):
        load_checkpoint(save_checkpoint(tmp_path, training()), training(width=4, steps=0))


def test_a_save_that_fails_half_way_leaves_the_older_checkpoint_alone(tmp_path, monkeypatch):
    import msgm.training.checkpoints as module

    state = training()
    save_checkpoint(tmp_path, state)
    whole = module.save_file

    def full(tensors, path):
        if "optimiser" in path.name:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        whole(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    state.step = 3
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, state)
    assert names(tmp_path) == ["step-00000002"]
    load_checkpoint(checkpoints(tmp_path)[-1], training(seed=1, steps=0))


@contextmanager
def files_of_at_most(size: int):
    """Let the system refuse to write larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_system_that_refuses_the_write_ends_the_run_in_one_sentence(tmp_path):
    state = training(width=5000)
    with files_of_at_most(20_000), pytest.raises(RunError) as error:
        save_checkpoint(tmp_path, state)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []
