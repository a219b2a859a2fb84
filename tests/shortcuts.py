"""What tests do not do again and again: train one judge twice, and render figures that nobody looks at."""

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
