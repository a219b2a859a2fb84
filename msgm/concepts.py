"""What a request to a text-to-image model names: prompts to forget, prompts to keep, and an anchor."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.ids import as_id, as_list, listed, shown

HINTS = 3
"""Captions at most that an error proposes."""


@dataclass
class Concept:
    """Prompts to forget, prompts to keep, and the prompt that is to take the place of those to forget.

    Example:
        >>> wish = msgm.ForgetRequest(concept=msgm.Concept(forget=["seven"], keep=["two"]))
        >>> wish.describe()
        'suppression of the concept given by concept seven, as a condition'

    Attributes:
        forget: the prompts, each once. Items to forget are those with a caption that holds one of them as whole words,
            in whatever case: ``seven`` is in "Seven and two", and not in "seventeen".
        keep: prompts whose images are to stay as they are, for methods that read prompts alone; the empty one may be
            among them.
        anchor: the prompt whose images the prompts to forget may come to show; the empty one asks for nothing.

    Raises:
        UserError: no prompt to forget, one without a word, one twice, or one both to forget and to keep.
    """

    forget: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    anchor: str = ""

    def __post_init__(self) -> None:
        key = "request.concept"
        self.forget = [as_id(prompt, f"{key}.forget", "a prompt") for prompt in as_list(self.forget, f"{key}.forget")]
        self.keep = as_list(self.keep, f"{key}.keep", "prompts")
        for place, prompts in (("keep", self.keep), ("anchor", [self.anchor])):
            for prompt in prompts:
                if not isinstance(prompt, str):
                    raise UserError(f"{key}.{place}: expected a prompt as text, got {shown(prompt)}.")
        if not self.forget:
            raise UserError(f"{key}.forget: name at least one prompt to forget.")
        for prompt in self.forget:
            if self.forget.count(prompt) > 1:
                raise UserError(f"{key}.forget: {prompt!r} is given twice.")
            if prompt in self.keep:
                raise UserError(f"{key}.keep: {prompt!r} is to be forgotten too; leave it out of one list.")

    def mask(
        self, prompts: Sequence[str], captions: NDArray[np.int64], named: Sequence[tuple[int, ...]] = ()
    ) -> NDArray[np.bool_]:
        """Return (N,) which items have a caption that mentions a prompt to forget.

        Args:
            prompts: texts of captions.
            captions: (N, K) positions in ``prompts`` of each item's captions, -1 where it has fewer than K.
            named: the classes that each of ``prompts`` names, where the data say it.

        Raises:
            UserError: data without captions, or a prompt that no caption mentions.
        """
        if not len(prompts):
            raise UserError("request.concept needs data with captions, and these have none.")
        used = np.isin(np.arange(len(prompts)), captions)
        found = self.mentioned(prompts, named) & used[:, None]
        for prompt, mentioned in zip(self.forget, found.T, strict=True):
            if not mentioned.any():
                near = nearest_captions(prompt, [prompt for prompt, seen in zip(prompts, used, strict=True) if seen])
                raise UserError(f"request.concept.forget: no caption mentions {prompt!r}; the nearest are {near}.")
        return np.asarray(np.append(found.any(1), False)[captions].any(1))

    def mentioned(self, prompts: Sequence[str], named: Sequence[tuple[int, ...]] = ()) -> NDArray[np.bool_]:
        """Return (prompts, forget) which texts of captions mention which prompts to forget.

        Where the data say which classes prompts name, a text mentions a prompt only if it names the prompt's classes:
        "the digit after seven" does not mention "seven".
        """
        found = mentions(prompts, self.forget)
        classes = dict(zip(prompts, named, strict=True)) if named else {}
        for k, own in enumerate(named):
            found[k] &= [set(classes.get(prompt, ())) <= set(own) for prompt in self.forget]
        return found


def mentions(captions: Sequence[str], prompts: Sequence[str]) -> NDArray[np.bool_]:
    """Return (captions, prompts) whether a caption holds a prompt as whole words, in whatever case.

    Example:
        >>> mentions(["Seven and two", "seventeen"], ["seven", "two"]).tolist()
        [[True, True], [False, False]]
    """
    patterns = [_whole_words(prompt) for prompt in prompts]
    found = [[bool(pattern.search(caption)) for pattern in patterns] for caption in captions]
    return np.array(found, dtype=bool).reshape(len(captions), len(prompts))


def nearest_captions(prompt: str, captions: Sequence[str]) -> str:
    """Return the captions that are spelled most like ``prompt``, or else the first ones, for an error."""
    folded = {caption.casefold(): caption for caption in reversed(captions)}
    near = get_close_matches(prompt.casefold(), list(folded), n=HINTS, cutoff=0.3) or list(folded)[-1 : -HINTS - 1 : -1]
    return listed([repr(folded[text]) for text in near])


def _whole_words(prompt: str) -> re.Pattern[str]:
    """Return a pattern that finds the words of a prompt one after the other, with any spaces between them."""
    words = r"\s+".join(map(re.escape, prompt.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
