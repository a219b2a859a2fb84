"""Does it stay forgotten, and is it like a retrained model? One attack, control or comparison a file, a metric each.

All attacks change copies: the given model is left unchanged.
"""

from msgm.evaluation.attacks import (  # noqa: F401 - they register themselves
    c2st,
    course,
    embedding,
    extraction,
    guidance_sweep,
    guided_recall,
    latent_inversion,
    lira,
    membership,
    neighbours,
    noise_search,
    partial_noise,
    pia,
    prefix_search,
    quantisation,
    relearning,
    resurgence,
    sample_distance,
    score_distance,
    secmi,
    sima,
    token_search,
    weights,
)
