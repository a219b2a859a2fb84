"""Does it stay forgotten? One attack or control a file; each registers itself as a metric.

All of them change copies: the model that is given comes out as it went in.
"""

from msgm.evaluation.attacks import (  # noqa: F401 - they register themselves
    course,
    membership,
    neighbours,
    partial_noise,
    quantisation,
    relearning,
    resurgence,
    weights,
)
