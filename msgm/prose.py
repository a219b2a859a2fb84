"""Sentences in docstrings and comments."""

import re


def first_sentence(text: str) -> str:
    r"""Return the first sentence of a text, on one line, without its full stop.

    Example:
        >>> first_sentence("MNIST, 28x28 (arXiv 2412.07229): forget\nthe class 3. From the paper.")
        'MNIST, 28x28 (arXiv 2412.07229): forget the class 3'
    """
    words = " ".join(text.split("\n\n")[0].split())
    return re.split(r"\.(?= [A-Z`(]|$)", words, maxsplit=1)[0]
