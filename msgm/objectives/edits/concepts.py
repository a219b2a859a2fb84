"""What edits of prompts read: the embeddings of the places of prompts to forget, of their guides, and of those to keep.

A prompt's places are its begin, its words, its end and the padding behind. In a text encoder that reads from left to
right a place knows what stands before it, so that the last word knows the whole prompt, the first one only itself, and
the begin nothing; the empty prompt, which has no word, gives the embedding of its begin.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.objectives.edits.base import in_double
from msgm.objectives.edits.cross_attention import Pairs

Tokens = Literal["last", "words", "rest"]
Places = tuple[Tensor, Tensor]
"""The embedding of a prompt's places (L, E), and which of them hold words (L,)."""
CHUNK = 16
"""Prompts whose embeddings are held in memory at a time."""


@dataclass(frozen=True)
class Texts:
    """Prompts to forget, each with its guide, and prompts to keep, as a network embeds them.

    Example:
        >>> def encode(prompts):  # a place for the begin, one for the only word, one for the end
        ...     words = torch.tensor([[[0.0], [float(len(prompt))], [9.0]] for prompt in prompts])
        ...     return msgm.diffusion.Condition(None, words, words.squeeze(2) % 9 > 0)
        >>> texts = Texts(encode, forget=["seven"], guides=["two"], keep=["three"])
        >>> [(a.tolist(), b.tolist()) for a, b in texts.erased("last")]
        [([[5.0]], [[3.0]])]

    Attributes:
        encode: embeds prompts, such as a text network's method of this name.
        forget: prompts to forget.
        guides: one for each of them, whose outputs it is to give; the empty prompt is one too.
        keep: prompts whose outputs are to stay. The empty prompt may be one while it is a guide: what it gave at first
            is the target of both.

    Raises:
        UserError: another number of guides than of prompts to forget, or a prompt both to forget and to keep.
    """

    encode: Callable[[Sequence[str]], Condition]
    forget: Sequence[str]
    guides: Sequence[str]
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.guides) != len(self.forget):
            raise UserError(
                f"edit.guides: expected one for each of the {len(self.forget)} prompts to forget, in their order, got "
                f"{len(self.guides)}."
            )
        both = [prompt for prompt in self.forget if prompt in self.keep]
        if both:
            raise UserError(f"request.concept.keep: {both[0]!r} is to be forgotten too; leave it out of one list.")

    def erased(self, tokens: Tokens) -> Iterator[Pairs]:
        """Yield the embeddings of places of the prompts to forget, (n, E), with those of their guides, in float64.

        Args:
            tokens: ``last``: a prompt's last word, with its guide's; ``words``: each of its words, with its guide's
                last one; ``rest``: the last word and all places behind it, the end and padding, one by one.
        """
        for forget, guides in zip(_chunks(self.forget), _chunks(self.guides), strict=True):
            found = zip(forget, self.places(forget), self.places(guides), strict=True)
            pairs = [self._pair(prompt, text, guide, tokens) for prompt, text, guide in found]
            texts, targets = zip(*pairs, strict=True)
            yield torch.cat(texts), torch.cat(targets)

    def _pair(self, prompt: str, asked: Places, led_to: Places, tokens: Tokens) -> Pairs:
        (text, mask), (guide, guide_mask) = asked, led_to
        if not bool(mask.any()):
            raise UserError(
                f"request.concept.forget: {prompt!r} holds no word that the text encoder reads; leave it out."
            )
        last, target = _last_place(mask), _last_place(guide_mask)
        if tokens == "rest":
            count = len(text) - max(last, target)
            return text[last : last + count], guide[target : target + count]
        chosen = text[last : last + 1] if tokens == "last" else text[mask]
        return chosen, guide[target].expand_as(chosen)

    def kept(self, tokens: Tokens) -> Iterator[Pairs]:
        """Yield the embeddings of places of the prompts to keep, each its own target, in float64.

        Args:
            tokens: ``last``: a prompt's last word; ``words``: its words; ``rest``: all of its places. The begin of the
                empty prompt stands for its word.
        """
        for prompts in _chunks(self.keep):
            chosen = []
            for text, mask in self.places(prompts):
                last = _last_place(mask)
                words = text[mask] if bool(mask.any()) else text[:1]
                chosen.append({"last": text[last : last + 1], "words": words, "rest": text}[tokens])
            found = torch.cat(chosen)
            yield found, found

    def places(self, prompts: Sequence[str]) -> Iterable[Places]:
        """Return each prompt's embedding (L, E), in float64, and which of its places hold words (L,)."""
        with torch.no_grad():
            found = self.encode(prompts)
        assert found.embedding is not None
        assert found.mask is not None
        embedding = in_double(found.embedding)
        return zip(embedding, found.mask.to(embedding.device), strict=True)


def _chunks(prompts: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(prompts), CHUNK):
        yield list(prompts[first : first + CHUNK])


def _last_place(mask: Tensor) -> int:
    """Return the place of the last word; of the begin, where there is none."""
    return int(mask.nonzero().amax()) if bool(mask.any()) else 0
