"""Score-based diffusion: processes, networks, the score model, samplers and likelihood. Knows no objective."""

from msgm.diffusion.conditions import Condition
from msgm.diffusion.delta import Delta
from msgm.diffusion.guidance import GUIDANCE, Guidance
from msgm.diffusion.likelihood import log_likelihood, negative_log_likelihood
from msgm.diffusion.likelihood_settings import LikelihoodSettings
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.networks import NETWORKS
from msgm.diffusion.processes import DDPM, PROCESSES, VE, VP, Flow, Process, SubVP
from msgm.diffusion.samplers import SAMPLERS, SamplingSettings, sample
from msgm.diffusion.shards import Sharded

__all__ = [
    "DDPM",
    "GUIDANCE",
    "NETWORKS",
    "PROCESSES",
    "SAMPLERS",
    "VE",
    "VP",
    "Condition",
    "Delta",
    "Flow",
    "Guidance",
    "LikelihoodSettings",
    "Process",
    "SamplingSettings",
    "ScoreModel",
    "Sharded",
    "SubVP",
    "log_likelihood",
    "negative_log_likelihood",
    "sample",
]
