"""Guidance: views of a model whose samples are guided and whose weights stay; importing a file registers its kinds."""

from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Guided, unguided, views
from msgm.diffusion.guidance.classifier import Classifier
from msgm.diffusion.guidance.classifier_free import ClassifierFree
from msgm.diffusion.guidance.contrast import DNG, Negative
from msgm.diffusion.guidance.prompted import NegativePrompt, SafeLatent
from msgm.diffusion.guidance.reject import Reject
from msgm.diffusion.guidance.shield import SafeDenoiser, Spell
from msgm.diffusion.guidance.stored import load_guided, read_guidance, save_guidance

__all__ = [
    "DNG",
    "GUIDANCE",
    "Classifier",
    "ClassifierFree",
    "Guidance",
    "Guided",
    "Negative",
    "NegativePrompt",
    "Reject",
    "SafeDenoiser",
    "SafeLatent",
    "Spell",
    "load_guided",
    "read_guidance",
    "save_guidance",
    "unguided",
    "views",
]
