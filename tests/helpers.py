"""Models whose score is known in closed form."""

import re
import sys

import numpy as np
import torch
from torch import nn

from msgm import plugins
from msgm.diffusion import DDPM, VE, VP, Flow, ScoreModel, SubVP
from msgm.diffusion.model import per_item


def edit_unloaded(file, text, monkeypatch):
    """Write a Python file anew and forget that it was imported, as a later process finds it."""
    file.write_text(text)
    name = plugins._module_name(str(file))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(plugins._digests, name, raising=False)


PROCESS_CASES = {"ve": VE(), "vp": VP(), "subvp": SubVP(), "ddpm": DDPM(), "flow": Flow()}


class Mixture(ScoreModel):
    """The exact model of data from sum_k w_k N(mean_k, std_k^2 I); counts its evaluations.

    A label is the number of a component; without one it is the whole mixture.
    """

    def __init__(self, process, means, stds, weights=None):
        self.means = torch.as_tensor(means, dtype=torch.float64)
        self.stds = torch.as_tensor(stds, dtype=torch.float64)
        weights = torch.ones(len(self.means)) if weights is None else torch.as_tensor(weights)
        self.weights = weights.double() / weights.sum()
        self.calls = 0
        super().__init__(nn.Linear(1, 1), process, tuple(self.means.shape[1:]))

    def coefficients(self, t):
        signal, noise = self.process.signal(t.double()), self.process.noise(t.double())
        return signal, noise, (signal[:, None] * self.stds) ** 2 + noise[:, None] ** 2

    def joint(self, x, t, condition=None):
        """ln w_k p_k(x) at time t, (B, K); -inf, and 0 for ln w_k, where a label asks for another component."""
        return self._joint(x.double(), *self.coefficients(t), condition)

    def _joint(self, x, signal, noise, variance, condition):
        squares = (x[:, None] - signal[:, None, None] * self.means).square().sum(2)
        normal = -0.5 * squares / variance - 0.5 * x.shape[1] * torch.log(2 * torch.pi * variance)
        joint = normal + self.weights.log()
        if condition is None:
            return joint
        asked = condition.labels[:, None] == torch.arange(len(self.means))
        return torch.where(condition.null[:, None], joint, normal.masked_fill(~asked, -torch.inf))

    def log_density(self, x, t, condition=None):
        return self.joint(x, t, condition).logsumexp(1)

    def eps(self, x, t, condition=None):
        self.calls += 1
        signal, noise, variance = self.coefficients(t)
        share = self._joint(x.double(), signal, noise, variance, condition).softmax(1) / variance
        pulled = share.sum(1, keepdim=True) * x - signal[:, None] * (share @ self.means)
        return (pulled * noise[:, None]).to(x.dtype)

    def draw(self, count, seed=0):
        g = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=g)
        noise = torch.randn(count, self.means.shape[1], generator=g, dtype=torch.float64)
        return self.means[which] + self.stds[which, None] * noise

    def eps_nodes(self, x, t, degree=8):
        """Gauss-Hermite nodes (N, D) and weights (N,) of the noise given x_t = x, for one point x (D,)."""
        signal, noise, variance = self.coefficients(t)
        share = self.joint(x[None], t).softmax(1)[0]
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(degree))
        dims = len(x)
        grid = torch.cartesian_prod(*[nodes] * dims).view(-1, dims)
        mass = torch.cartesian_prod(*[weights / weights.sum()] * dims).view(-1, dims).prod(1)
        centre = noise[0] * (x - signal[0] * self.means) / variance[0, :, None]
        width = signal[0] * self.stds / variance[0].sqrt()
        return (centre[:, None] + width[:, None, None] * grid).flatten(0, 1), (share[:, None] * mass).flatten()


class Correlated(ScoreModel):
    """The exact model of data from N(0, covariance)."""

    def __init__(self, process, covariance):
        self.values, self.vectors = torch.linalg.eigh(torch.as_tensor(covariance, dtype=torch.float64))
        super().__init__(nn.Linear(1, 1), process, (len(self.values),))

    def draw(self, count, seed=0):
        g = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, len(self.values), generator=g, dtype=torch.float64)
        return (self.values.sqrt() * noise) @ self.vectors.T

    def variances(self, t):
        return per_item(self.process.signal(t.double()) ** 2, self.values[None]) * self.values + per_item(
            self.process.noise(t.double()) ** 2, self.values[None]
        )

    def eps(self, x, t, condition=None):
        noise = self.process.noise(t.double())[:, None]
        return (((x.double() @ self.vectors) * noise / self.variances(t)) @ self.vectors.T).to(x.dtype)

    def log_density(self, x, t):
        variances = self.variances(t)
        along = x.double() @ self.vectors
        return -0.5 * (along**2 / variances + torch.log(2 * torch.pi * variances)).sum(1)


class Counted(nn.Module):
    """A network that counts its forward passes and puts out weight * x."""

    def __init__(self, weight=0.5):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.calls = 0

    def forward(self, x, label):
        self.calls += 1
        return self.weight * x


NASTY = "n\n# H <img onerror=x>\n| a | b |\n- `c` $\\frac$ [d](e) *f* __g__ <!-- ~~~"
"""What a title, a class or a note may hold, with everything that Markdown, HTML and formulas give a meaning."""


def as_name(text: str) -> str:
    """Return the nearest text to this one that may name a row, a request or a model, and so a file."""
    return re.sub(r"[\n/\\]", " ", text)


def blocks(text: str) -> list[tuple[str, int]]:
    """Return of each line of Markdown what kind of block it is and its number of cells; refuse any HTML or code."""
    assert not re.search(r"<[a-z!/?]|(?<!\\)(?:\\\\)*`", text, re.IGNORECASE), text
    kinds = ("(#+) ", "- ", "\\|", "!\\[", "$", "(```|~~~|>|[*+] |[0-9]+[.)] )")
    return [
        (
            next((f"{kind} {found[0]}" for kind in kinds if (found := re.match(kind, line))), "text"),
            len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)),
        )
        for line in text.splitlines()
    ]
