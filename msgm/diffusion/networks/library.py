"""Networks of the diffusers library: one class wraps each kind, which is saved whole, as diffusers reads it.

A network that learns its variance puts out twice the channels: the mean's and the variance's. msgm reads the mean's,
trains them, and saves all of them.
"""

import json
import re
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from msgm.diffusion.networks.base import Network
from msgm.errors import UserError
from msgm.reading import read_json

VARIANT = re.compile(r"\.([a-zA-Z_]\w*?)(?:-\d+-of-\d+)?\.safetensors$|\.safetensors\.index\.(\w+)\.json$")
"""End of the names of files with weights of another precision or kind, as in ``model.fp16.safetensors``."""
CLASSES = "classes.json"
"""File beside the weights of a class-conditional network, which diffusers does not read."""


ATTENTION = {
    SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
    SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
}
"""Kinds of attention, and whether torch may choose each now, on any device."""


class Classes(TypedDict):
    """Contents of ``CLASSES``."""

    null: bool


class Library(Network):
    """A network of diffusers.

    Attributes:
        part: name of the network's attribute here, of its folder, and of the pipeline's part.
        kind: diffusers' name of its class.
        own_null: whether every network of the kind has a null class.
    """

    part: ClassVar[str]
    kind: ClassVar[str]
    own_null: ClassVar[bool] = False

    def __init__(self, body: Any, has_null: bool) -> None:
        super().__init__()
        setattr(self, self.part, body)
        self._count_classes(self.embeddings(), has_null)

    @abstractmethod
    def embeddings(self) -> int:
        """Return the number of classes that the network has embeddings for, the null class among them."""

    @property
    def body(self) -> Any:
        """The network of diffusers."""
        return getattr(self, self.part)

    @property
    def item_dims(self) -> int:
        return int(self.body.config.in_channels)

    @property
    def learns_variance(self) -> bool:
        """Whether half of the channels that it puts out are the variance's, which are not read."""
        return bool(self.body.config.out_channels == 2 * self.body.config.in_channels)

    def listed(self) -> dict[str, Any]:
        """Return the network's entries of ``model_index.json``."""
        return {self.part: ["diffusers", self.kind]}

    def _count_classes(self, embeddings: int, has_null: bool) -> None:
        """Set the number of classes, of whose embeddings the last is the null condition's if ``has_null``.

        A network without classes reads nothing but the null condition.
        """
        self.has_null = has_null or not embeddings
        self.classes = embeddings - 1 if embeddings and has_null else embeddings

    def checkpoint_gradients(self, on: bool) -> None:
        if not on:
            self.body.disable_gradient_checkpointing()
            return
        try:
            self.body.enable_gradient_checkpointing(recomputed)
        except ValueError as error:  # a kind of diffusers' networks that a plugin wraps
            raise UserError(f"training.gradient_checkpointing: {self.kind} cannot compute its blocks anew.") from error

    def last_class_is_null(self) -> None:
        """State that the last class of a network of another make means the null condition; saved with the network."""
        if self.classes and not self.has_null:
            self._count_classes(self.classes, has_null=True)

    def save(self, folder: Path) -> None:
        """Write the network's folder as diffusers reads it."""
        own = folder / self.part
        self.body.save_pretrained(own, safe_serialization=True)
        # diffusers notes the folder that a network was read from, a path of this machine.
        file = own / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if self.classes:
            (own / CLASSES).write_text(json.dumps({"null": self.has_null}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the network's folder."""
        return cls.read(folder / cls.part)

    @classmethod
    def read(cls, own: Path) -> Self:
        """Read the network from its own folder.

        Raises:
            UserError: another kind of network, or weights that are missing.
        """
        file = own / CLASSES
        has_null = read_json(file, Classes)["null"] if file.is_file() else cls.own_null
        return cls(read_body(own, cls.kind), has_null)


def recomputed(block: Any, *inputs: Any) -> Any:
    """Pass inputs through a block and keep them alone; the backward pass repeats it, by the attention of now.

    A loss that is differentiated twice allows one kind of attention in its forward pass, and the block is repeated
    after that has ended.
    """
    if torch.compiler.is_compiling():
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), Attention()))


class Attention(AbstractContextManager[None]):
    """Context with the kinds of attention that were allowed when it was made; it may be entered again."""

    def __init__(self) -> None:
        self._allowed = [kind for kind, is_allowed in ATTENTION.items() if is_allowed()]
        self._entered = ExitStack()

    def __enter__(self) -> None:
        self._entered.enter_context(sdpa_kernel(self._allowed))

    def __exit__(self, *error: object) -> None:
        self._entered.close()


def read_body(folder: Path, kind: str) -> Any:
    """Read a network of diffusers; see ``read_whole``.

    Args:
        folder: of its config.json and weights.
        kind: name of its class.

    Raises:
        UserError: another kind of network, or weights that are missing.
    """
    import diffusers

    found = read_json(folder / "config.json", dict[str, Any]).get("_class_name", kind)
    if found != kind:
        raise UserError(f"{folder} holds a {found}; msgm reads {kind} there only.")
    return read_whole(getattr(diffusers, kind), folder, low_cpu_mem_usage=False)


def read_whole(kind: Any, folder: Path, **options: Any) -> Any:
    """Read a network, in float32, and check that it is complete: libraries draw missing weights at random.

    Args:
        kind: its class in diffusers or transformers.
        folder: of its config.json and weights.
        **options: of the class's ``from_pretrained``.

    Raises:
        UserError: weights that are missing.
    """
    network, info = kind.from_pretrained(
        folder,
        variant=only_variant(folder),
        output_loading_info=True,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    if info["missing_keys"]:
        raise UserError(f"{folder}: weights are missing, {min(info['missing_keys'])} for one.")
    return network.float()


def variant_of(file: str) -> str | None:
    """Return of which precision or kind a file's weights are by its name; None of the plain ones.

    >>> variant_of("unet/model.fp16.safetensors"), variant_of("model.safetensors.index.non_ema.json")
    ('fp16', 'non_ema')
    >>> variant_of("model-00001-of-00002.safetensors") is None
    True
    """
    found = VARIANT.search(file)
    return None if found is None else found[1] or found[2]


def only_variant(folder: Path) -> str | None:
    """Return which weights are to be read: None for the plain ones, else the one variant that is there.

    Raises:
        UserError: several variants, and no plain weights.
    """
    found = {variant_of(file.name) for file in folder.glob("*.safetensors")}
    if None in found or not found:
        return None
    if len(found) > 1:
        raise UserError(f"{folder} holds weights of {', '.join(sorted(map(str, found)))}; keep the files of one.")
    variant = found.pop()
    print(f"note: {folder} holds weights of {variant} only; they are used and saved in float32.", flush=True)
    return variant
