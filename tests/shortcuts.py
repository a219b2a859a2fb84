"""What tests do not do again and again: what follows from what was done before, and figures that nobody looks at."""

import os
from contextlib import contextmanager

import pytest


@pytest.fixture(scope="session", autouse=True)
def judges_trained_once():
    """Train each judge once in this process; its weights follow from what is the key here, and from nothing else."""
    from msgm.evaluation.judges import own

    fit, weights = own._fit, {}

    def remembered(network, task, settings, seed, device):
        items = task.items("train").tobytes()
        key = (str(network), task.dataset.digest(), task.targets.tobytes(), items, repr(settings), seed, str(device))
        if key not in weights:
            fit(network, task, settings, seed, device)
            weights[key] = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(weights[key])
        network.eval()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "_fit", remembered)
        yield


@contextmanager
def worked_out_once(owner, name, key):
    """Work out what ``name`` of ``owner`` returns for arguments of the same ``key`` once in this process."""
    work, found = getattr(owner, name), {}

    def remembered(given):
        which = key(given)
        if which not in found:
            found[which] = work(given)
        return found[which]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def bandwidths_searched_once():
    """Search the bandwidth of each bank of items once in this process."""
    from msgm.objectives import redirect

    def key(items):
        return items.shape, items.dtype, items.numpy(force=True).tobytes()

    with worked_out_once(redirect, "leave_one_out_bandwidth", key):
        yield


@pytest.fixture(scope="session", autouse=True)
def documents_composed_once():
    """Take each text of YAML apart once in this process, and build what it says from its parts each time."""
    from msgm.reading import BoundedLoader

    def key(loader):
        return type(loader), loader.buffer  # each kind of loader reads a text in its own way

    with worked_out_once(BoundedLoader, "get_single_node", key):
        yield


@pytest.fixture(scope="session", autouse=True)
def files_not_forced_to_disk():
    """Leave it to the system when files reach the disk; whether they outlive a crash of the machine is not tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def figures_left_white():
    """Make figures but leave them white, as rendering one takes a quarter of a second; yield what renders them."""
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(figure, file, format, dpi):
        Image.new("L", tuple(round(inches * dpi) for inches in figure.get_size_inches()), 255).save(file, format)

    render = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield render


@pytest.fixture(scope="module")
def rendered(figures_left_white):
    """Render the figures of this file, whose tests look at them or at what stands in them."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", figures_left_white)
        yield
