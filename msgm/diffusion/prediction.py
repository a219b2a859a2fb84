"""What a network's output means: the noise, a velocity or the clean item, each as the noise and as the clean item.

With x = a x0 + sigma eps and the network's output o, in diffusers' terms:

===============  ===================  =========================  ===========================
prediction       o                    eps                        x0
===============  ===================  =========================  ===========================
epsilon          eps                  o                          (x - sigma o) / a
v_prediction     a eps - sigma x0     a o + sigma x              a x - sigma o
sample           x0                   (x - a o) / sigma          o
flow_prediction  eps - x0             (x + a o) / (a + sigma)    (x - sigma o) / (a + sigma)
===============  ===================  =========================  ===========================

v_prediction supposes a^2 + sigma^2 = 1. In flow matching a + sigma = 1 and flow_prediction is its velocity dx/dt.
"""

from typing import Literal

from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]


def to_eps(prediction: Prediction, out: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Return eps of the output ``out`` at ``x``; ``signal`` a and ``noise`` sigma broadcast over it."""
    if prediction == "epsilon":
        return out
    if prediction == "v_prediction":
        return signal * out + noise * x
    if prediction == "flow_prediction":
        return (x + signal * out) / (signal + noise)
    return (x - signal * out) / noise


def to_clean(prediction: Prediction, out: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Return x0 of the output; arguments as of ``to_eps``. Not finite where a = 0 for an output of eps."""
    if prediction == "epsilon":
        return (x - noise * out) / signal
    if prediction == "v_prediction":
        return signal * x - noise * out
    if prediction == "flow_prediction":
        return (x - noise * out) / (signal + noise)
    return out
