"""The prompts that a text network's labels ask for: those of the data's captions, and those of a request."""

from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.networks import TextNetwork
from msgm.requests import Concept


def prompted(model: ScoreModel, dataset: Dataset, concept: Concept | None = None) -> ScoreModel:
    """Let the labels of a model that reads text ask for the data's prompts, and return it; any other stays as it is.

    A concept's prompts that no caption has are numbered behind those of the captions.
    """
    if isinstance(model.network, TextNetwork) and dataset.prompts:
        model.network.set_prompts(dataset.asked_by(concept).prompts)
    return model
