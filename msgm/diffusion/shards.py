r"""The mixture of models that were trained apart, each on a shard of the items.

With lambda_k the share of the items that shard k holds and p_k the density of its model, the ensemble is the mixture
p = sum_k lambda_k p_k, whose score at x_t is sum_k w_k s_k with w_k = lambda_k p_k,t(x_t) / p_t(x_t). A network that
told w_k from x_t would have to be trained on all items and would remember them, so no such router is used. ``Mixing``:

- ``drawn``: each walk draws its shard k with probability lambda_k and is the walk of that model alone. Its samples are
  exactly those of p, by any sampler, and cost no more than those of one model.
- ``posterior``: each walk keeps w_k, which start at lambda_k. From one level to the next the path is likelier under
  some of the models: with mu_k and var the mean and variance of an ancestral step, ln w_k falls by
  |y' - mu_k|^2 / 2 var (dynamic negative guidance's rule, arXiv 2410.14398, for K models). It is exact in the limit of
  many steps of a sampler of the reverse SDE. Along any path, by the diffusion equation,

      d ln p_k / d rho = (|eps_k|^2 - eps_k . dy / d rho) / rho - div eps_k,

  of which the rule has the first part; the divergence comes from the path's noise, if it is the reverse SDE's (Ito's
  formula). A walk without noise (``ddim``, ``dpm++2m``, ``heun``, ``pf-ode``), with other noise or with evaluations
  beside its path would need the divergences of all K models, or follow weights that are wrong however many its steps,
  unless these divergences agree: such samplers are refused. A sample costs K evaluations a step.
- ``equal``: w_k = lambda_k wherever x_t is (equal, for shards of one size). That is right only at large noise ratios,
  where all p_k,t are one; its samples are not those of p.

Likelihoods need no walk: ln p = ln sum_k exp(ln lambda_k + ln p_k), of the shards' own likelihoods, is the density of
p. Only with ``equal`` the likelihood is that of the mean field's own flow, for it is another distribution. Where no
walk says which shard is responsible (losses at single points, fine-tuning, walks of the PF-ODE from given items) eps is
that of ``equal``.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from msgm.chain import Chain, read_chain
from msgm.devices import precise
from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.description import FORMAT, Written
from msgm.diffusion.model import ScoreModel, per_item
from msgm.diffusion.samplers.base import SAMPLERS, Sampler
from msgm.errors import UserError
from msgm.reading import read_json
from msgm.seeding import derive_seed
from msgm.shapes import Count, Rule

Mixing = Literal["drawn", "posterior", "equal"]
FILE = "shards.json"
LEAST = 1e-6
"""Smallest weight of a shard along a walk, from which it can rise again."""


def check_path(sampler: Sampler) -> None:
    """Raise a UserError for a sampler along whose walks the responsibilities of ``posterior`` are wrong.

    >>> from msgm.diffusion.samplers import DDIM
    >>> check_path(DDIM(eta=1.0))
    """
    if not sampler.of_reverse_sde():
        right = ", ".join(name for name, other in SAMPLERS.entries.items() if other().of_reverse_sde())
        raise UserError(
            "sampling.sampler: shards.mixture posterior reads from a path of the reverse SDE which shard made it, "
            f"and {sampler.name!r} with these options walks none; take {right}, or the mixture drawn."
        )


class Listed(Written):
    """Contents of ``shards.json``: how the shards are mixed, and how many items each of them holds, in their order."""

    mixture: Mixing
    items: Annotated[list[Count], Rule("the numbers of items, one of them above 0", lambda found: sum(found) > 0)]


class Networks(nn.ModuleList):
    """The networks of all shards, which read the same conditions."""

    @property
    def classes(self) -> int:
        """Number of classes that they can be asked for; 0 for unconditional ones."""
        return int(getattr(self[0], "classes", 0))

    @property
    def has_null(self) -> bool:
        """Whether they have an embedding of the null condition."""
        return bool(getattr(self[0], "has_null", True))


@dataclass
class Followed:
    """What a walk of a batch knows of its trajectories.

    Attributes:
        log: (B, K) ln w_k; None before the first evaluation.
        ratio: rho of the last evaluation.
        y: (B, *shape) x / a there.
        each: (K, B, *shape) eps of all shards there.
    """

    log: Tensor | None = None
    ratio: float = 0.0
    y: Tensor | None = None
    each: Tensor | None = None


@dataclass(repr=False)
class Sharded(ScoreModel):
    """A mixture of models of one process and shape; ``Sharded.of`` makes one.

    Example:
        >>> from msgm.diffusion import Sharded
        >>> models = [msgm.ScoreModel.new("unet", "vp", channels=[8], seed=seed) for seed in (0, 1)]
        >>> mixture = Sharded.of(models, items=[300, 200])
        >>> mixture.sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])
        >>> mixture.shares
        (0.6, 0.4)

    Attributes:
        shards: the models; of a shard without items there is none.
        items: how many items each of them holds.
        mixture: how they are mixed; see the module.
        seeds: names of a walk's trajectories, by which ``drawn`` draws their shards; None where there is no such walk.
        followed: memory of a walk by ``posterior``; None where there is no such walk.
    """

    shards: tuple[ScoreModel, ...] = ()
    items: tuple[int, ...] = ()
    mixture: Mixing = "posterior"
    seeds: tuple[int, ...] | None = None
    followed: Followed | None = None

    @classmethod
    def of(
        cls,
        models: Sequence[ScoreModel],
        items: Sequence[int],
        mixture: Mixing = "posterior",
        chain: Chain | None = None,
    ) -> "Sharded":
        """Return the mixture of ``models``, whose shards hold so many ``items``.

        Raises:
            UserError: no model, models that differ in process or shape, or another number of shards.
        """
        if not models or len(models) != len(items) or min(items) < 1:
            raise UserError(
                f"shards: expected a number of items, 1 or more, for each of {len(models)} models: {items}."
            )
        first = models[0]
        for other in models:
            if (other.process, other.shape, other.classes) != (first.process, first.shape, first.classes):
                raise UserError(f"shards: {other!r} and {first!r} differ in process, shape or classes.")
        parts: dict[str, Any] = {f.name: getattr(first, f.name) for f in fields(ScoreModel)}
        own = {"network": Networks([model.network for model in models]), "chain": chain, "sealed": None, "folder": None}
        return cls(**parts | own, shards=tuple(models), items=tuple(items), mixture=mixture)

    def __repr__(self) -> str:
        return f"Sharded({self.mixture}, {len(self.shards)} shards of {self.shards[0]!r})"

    @property
    def shares(self) -> tuple[float, ...]:
        """lambda_k: each shard's share of the items."""
        return tuple(count / sum(self.items) for count in self.items)

    @property
    def classes(self) -> int:
        return self.shards[0].classes

    def asked(self, condition: Asked, count: int) -> Condition | None:
        return self.shards[0].asked(condition, count)

    def with_network(self, network: nn.Module) -> "Sharded":
        assert isinstance(network, nn.ModuleList)
        shards = tuple(shard.with_network(own) for shard, own in zip(self.shards, network, strict=True))
        return replace(self, network=network, shards=shards)

    def parts(self) -> Iterator[tuple[float, ScoreModel]]:
        """Yield (lambda_k, model) of the mixture whose density this has; ``equal`` is one field of its own."""
        yield from [(1.0, self)] if self.mixture == "equal" else zip(self.shares, self.shards, strict=True)

    def for_walk(self, seeds: Sequence[int] | None = None) -> "Sharded":
        if seeds is None:
            return self
        return replace(self, seeds=tuple(seeds), followed=Followed() if self.mixture == "posterior" else None)

    def check_sampler(self, sampler: Sampler) -> None:
        """Raise a UserError where the path of ``sampler`` does not tell which shard is responsible."""
        if self.mixture == "posterior":
            check_path(sampler)

    def for_rows(self, rows: Tensor) -> "Sharded":
        if self.followed is not None:
            raise UserError("shards.mixture: posterior follows a path level by level; take a sampler with a grid.")
        return self if self.seeds is None else replace(self, seeds=tuple(self.seeds[row] for row in rows.tolist()))

    def eps(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return eps of the mixture, by the weights of the walk, or by the shares where there is none."""
        if self.seeds is not None and self.mixture == "drawn":
            return self._drawn(self.seeds, x, t, condition)
        each = torch.stack([shard.eps(x, t, condition) for shard in self.shards])
        if self.followed is None:
            weights = torch.tensor(self.shares, dtype=torch.float64, device=x.device).expand(len(x), -1)
        else:
            weights = self._posterior(self.followed, x, t, each)
        return torch.stack([per_item(w, e).to(e) * e for w, e in zip(weights.T, each, strict=True)]).sum(0)

    def denoise(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the denoised item that the mixture's eps means."""
        signal, noise = self._path(x, t)
        return (x - noise * self.eps(x, t, condition)) / signal

    def _drawn(self, seeds: Sequence[int], x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        draws = torch.tensor([derive_seed(seed, "shard") / 2**63 for seed in seeds], dtype=torch.float64)
        edges = torch.tensor(self.shares, dtype=torch.float64).cumsum(0)[:-1]
        chosen = torch.searchsorted(edges, draws, right=True).to(x.device)
        out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        for number, shard in enumerate(self.shards):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = shard.eps(x[rows], t[rows], None if condition is None else condition[rows]).to(out)
        return out

    def _posterior(self, walk: Followed, x: Tensor, t: Tensor, each: Tensor) -> Tensor:
        """Return w_k at x, (B, K) float64, from where the walk was before, which it is told."""
        time = precise(t)
        ratios = self.process.ratio(time)
        if bool((ratios != ratios[0]).any()):
            raise UserError("shards.mixture: posterior follows a path level by level; take a sampler with a grid.")
        ratio, y = float(ratios[0]), precise(x) / per_item(self.process.signal(time), x)
        log = walk.log
        if log is None:
            log = torch.tensor(self.shares, dtype=torch.float64).log().to(y).expand(len(y), -1)
        elif ratio < walk.ratio:
            assert walk.y is not None
            assert walk.each is not None
            drop = walk.ratio**2 - ratio**2
            variance = ratio**2 * drop / walk.ratio**2
            squares = (y - walk.y + drop / walk.ratio * precise(walk.each)).flatten(2).square().sum(2)
            log = log - squares.T / (2 * variance)
        weights = log.softmax(1).clamp_min(LEAST)
        weights = weights / weights.sum(1, keepdim=True)
        walk.log, walk.ratio, walk.y, walk.each = weights.log(), ratio, y, each
        return weights

    def _write(self, folder: Path) -> None:
        """Write the shards' folders, ``shards.json``, and the parts that every model has."""
        for number, shard in enumerate(self.shards):
            (folder / _name(number)).mkdir()
            replace(shard, chain=None)._write(folder / _name(number))
        listed: Listed = {"format": FORMAT, "mixture": self.mixture, "items": list(self.items)}
        (folder / FILE).write_text(json.dumps(listed, indent=2))
        self._describe(folder, "shards")


def _name(number: int) -> str:
    return f"shard-{number}"


def load_shards(folder: Path) -> Sharded:
    """Read the folder of a ``Sharded``; ``ScoreModel.load`` does where it finds ``shards.json``.

    Raises:
        UserError: a shard is missing or damaged, or a file of a newer version.
    """
    listed: Listed = read_json(folder / FILE, Listed)
    if listed["format"] > FORMAT:
        raise UserError(f"{folder} was written by a newer msgm (format {listed['format']}; this one reads {FORMAT}).")
    models = [ScoreModel.load(folder / _name(number)) for number in range(len(listed["items"]))]
    return Sharded.of(models, listed["items"], listed["mixture"], read_chain(folder))


def log_mixed(model: ScoreModel, density: Callable[[ScoreModel], Tensor]) -> Tensor:
    """Return ln sum_k lambda_k exp(density(model_k)), (B,); of a model that is no mixture its own, to the bit."""
    parts = list(model.parts())
    if len(parts) == 1:
        return density(parts[0][1])
    logs = torch.tensor([share for share, _ in parts], dtype=torch.float64).log()
    return torch.stack([log + density(part) for log, (_, part) in zip(logs, parts, strict=True)]).logsumexp(0)
