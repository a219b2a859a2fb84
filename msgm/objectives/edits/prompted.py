"""Base of edits that read prompts alone, and change the layers through which a denoiser reads texts."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from msgm.diffusion.model import ScoreModel
from msgm.diffusion.networks import TextNetwork
from msgm.errors import UserError
from msgm.objectives.edits.base import Edit, EditSetup
from msgm.objectives.edits.concepts import Texts, Tokens
from msgm.objectives.edits.cross_attention import Pairs, drifts, residuals, write
from msgm.requests import Concept


@dataclass
class PromptEdit(Edit):
    """An edit of a text network's cross-attention by the prompts of a request, which reads no item.

    The prompts are those of ``request.concept``, or those that the labels of the items to forget and to retain ask for.
    Every key and value projection that reads the text is multiplied by one matrix; all other weights, the text encoder
    among them, stay as they are. A subclass writes ``solution``.

    Example:
        >>> [edit.name for edit in EDITS.entries.values() if issubclass(edit, PromptEdit)]
        ['uce', 'rece', 'mace']

    Its facts name, by layer, the ``residual``, the share of the way from a prompt's outputs to those of its guide that
    is left, and the ``drift`` of the outputs of prompts to keep, as a share of their length; and ``lam_by_norm``, lam
    beside the mean squared length of an embedding to forget.

    Attributes:
        lam: weight of the distance to the weights as they were, as in every such edit.
        tokens: which places of prompts are read.
        guides: the prompt that each prompt to forget is led to, in their order; empty leads all to the request's
            anchor.
    """

    lam: float
    tokens: Tokens
    guides: list[str] = field(default_factory=list, kw_only=True)

    data = "prompts"

    @abstractmethod
    def solution(self, layers: Mapping[str, nn.Linear], texts: Texts) -> Tensor:
        """Return X, (E, E), with which every layer becomes W_0 (I + X)."""

    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        network = model.network
        if not isinstance(network, TextNetwork):
            raise UserError(
                f"edit.name: {self.name} edits the layers that read a text, and the network reads none; start from a "
                "text-to-image pipeline."
            )
        concept = setup.concept or _of_labels(network, setup)
        guides = self.guides or [concept.anchor] * len(concept.forget)
        layers, texts = network.cross_attention(), Texts(network.encode, concept.forget, guides, concept.keep)
        before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        write(layers, self.solution(layers, texts))
        self.facts |= {
            "concepts": len(texts.forget),
            "kept": len(texts.keep),
            "lam_by_norm": self.lam / _mean_square_norm(texts.erased(self.tokens)),
            "residual": residuals(before, layers, texts.erased(self.tokens)),
            "drift": drifts(before, layers, texts.kept(self.tokens)),
        }


def _of_labels(network: TextNetwork, setup: EditSetup) -> Concept:
    """Return the prompts that the labels of the items to forget and to retain ask for.

    Raises:
        UserError: there are no labels of prompts.
    """
    if not setup.forgotten or not network.prompts:
        raise UserError(
            "request.concept: the edit forgets prompts, and the request names none; give {forget: [seven], keep: "
            "[one]}, say."
        )
    kept = [number for number in setup.retained if number not in setup.forgotten]
    forget, keep = ([network.prompts[number] for number in numbers] for numbers in (setup.forgotten, kept))
    return Concept(forget, keep)


def _mean_square_norm(pairs: Iterable[Pairs]) -> float:
    """Return the mean of |c|^2 over all embeddings to forget."""
    norms = torch.cat([texts.square().sum(1) for texts, _ in pairs])
    return norms.mean().item()
