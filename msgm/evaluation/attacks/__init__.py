"""Does it stay forgotten? One attack or control a file; each registers itself as a metric.

All attacks change copies: the given model is left unchanged.
"""

from msgm.evaluation.attacks import (  # noqa: F401 - they register themselves
    course,
    extraction,
    membership,
    neighbours,
    partial_noise,
    pia,
    quantisation,
    relearning,
    resurgence,
    secmi,
    sima,
    weights,
)
