"""The Hugging Face hub: downloading model folders, and writing the model card of a folder.

A model card is README.md with a YAML head. It is made to be published, so it says how many items were forgotten and
never which: no index, no name of a file, of a class or of a person, and no path of a machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgm import __version__
from msgm.cards.words import cannot_say, unsaid_of_goal
from msgm.chain import Chain, Entry
from msgm.diffusion.networks.library import variant_of
from msgm.downloads import announce
from msgm.errors import RunError, UserError
from msgm.markdown import document, section, table, text
from msgm.settings import dump_yaml

HOST = "huggingface.co"
ENDINGS = (".json", ".safetensors", "merges.txt", "spiece.model")
"""What is fetched: settings, weights and the words of tokenizers, and nothing that could run."""
TARGETS = {"observed": "the listed items", "latent": "an attribute", "concept": "a concept"}
NAMED = {
    "labels": "whole classes",
    "positions": "whole classes",
    "attribute": "all that have an attribute",
    "group": "all of some groups, such as people",
    "predicate": "chosen by a rule",
}
"""How a request named its items; other ways name them one by one."""


def fetched(name: str, revision: str | None = None) -> Path:
    """Fetch the settings and weights of a model of the hub, and return their folder in the hub's cache.

    Args:
        name: ``owner/model``.
        revision: branch, tag or commit; by default the main branch.

    Raises:
        UserError: the hub has no such model.
        RunError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = HfApi().model_info(name, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or []}
        files = needed(list(sizes))
        size = sum(sizes[file] for file in files) / 1e6
        announce(f"the model {name}", HOST, size, "from_pretrained", "give a folder", allowed=True)
        return Path(snapshot_download(name, revision=found.sha, allow_patterns=files))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = "" if revision is None else f" at {revision!r}"
        raise UserError(f"from_pretrained: {HOST} has no model {name!r}{at} that may be read.") from error
    except (HfHubHTTPError, OSError) as error:
        raise RunError(f"cannot fetch {name} from {HOST}: {next(iter(str(error).splitlines()), '')}") from error


def needed(files: Sequence[str]) -> list[str]:
    """Return those files of a model of the hub that are fetched.

    Of a pipeline they are those of its parts: whole checkpoints often lie beside them. Weights of lower precision are
    fetched where a part has no others.

    >>> needed(["model_index.json", "all.safetensors", "unet/a.safetensors", "unet/a.fp16.safetensors", "vae/x.bin"])
    ['model_index.json', 'unet/a.safetensors']
    """
    read = [file for file in files if file.endswith(ENDINGS)]
    if "model_index.json" in files:
        read = [file for file in read if "/" in file or file == "model_index.json"]
    plain = {_folder(file) for file in read if file.endswith(".safetensors") and variant_of(file) is None}
    return [file for file in read if _folder(file) not in plain or variant_of(file) is None]


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


@dataclass(frozen=True)
class Facts:
    """Facts on the model itself for its model card.

    Attributes:
        title: heading of the card.
        process: name of the process.
        shape: of an item.
        parameters: number of weights.
        pipeline: diffusers' pipeline that reads the folder, or None.
        classes: number of labels that it can be asked for; 0 for an unconditional model.
        learns_variance: whether its network puts out a variance too, which is not read.
    """

    title: str
    process: str
    shape: tuple[int, ...]
    parameters: int
    pipeline: str | None
    classes: int = 0
    learns_variance: bool = False


def model_card(facts: Facts, chain: Chain | None, card: Mapping[str, Any] | None) -> str:
    """Return the README.md of a model folder.

    Args:
        facts: of the model.
        chain: its forget requests; None if unknown.
        card: report card of this model, as ``Report.card`` returns it; None if it was not measured.

    Raises:
        UserError: a card that lacks a part.
    """
    requests = () if chain is None else chain.requests
    reached = "C0" if card is None else str(_part(card, "level"))
    goals = list(dict.fromkeys(entry.goal for entry in requests))
    unsaid = [line for goal in goals for line in unsaid_of_goal(goal, reached)]
    shape = " x ".join(map(str, facts.shape))
    return _head(facts) + document(
        [
            f"# {text(facts.title)}",
            "",
            f"A score-based generative model of process `{facts.process}` with {facts.parameters:,} weights. "
            f"It makes items of shape {shape} with values in [-1, 1].",
            *_code(facts),
            *section("What was asked", _asked(chain)),
            *_shown(card),
            *section("What cannot be said", cannot_say("as in inpainting or partly noised items") + unsaid),
        ]
    )


def _head(facts: Facts) -> str:
    tags = ["msgm", "machine-unlearning", "score-based-generative-model", facts.process]
    tree: dict[str, Any] = {"library_name": "msgm" if facts.pipeline is None else "diffusers"}
    if len(facts.shape) == 3 and not facts.classes:
        tree["pipeline_tag"] = "unconditional-image-generation"
    return f"---\n{dump_yaml(tree | {'tags': tags}).strip()}\n---\n\n"


def _code(facts: Facts) -> list[str]:
    lines = ["", "```python", "import msgm", "", 'model = msgm.ScoreModel.from_pretrained("path/to/this/folder")']
    asked = ", condition=0" if facts.classes else ""
    lines += [f"images = model.sample(16, seed=0{asked})", "```", ""]
    if facts.classes:
        lines += [f"Ask for a class by `condition`, 0 to {facts.classes - 1}; without one nothing is asked for.", ""]
    if facts.learns_variance:
        lines += ["The network also puts out a variance, which msgm neither uses nor trains.", ""]
    if facts.pipeline is not None:
        lines += [f"diffusers reads the folder as a `{facts.pipeline}`.", ""]
    return lines


def _asked(chain: Chain | None) -> list[str]:
    if chain is None:
        return ["What this model was asked to forget is not known."]
    lines = [_request(entry) for entry in chain.requests] or ["To forget: nothing."]
    if chain.unknown:
        lines.insert(0, "Requests before these are not known.")
    if chain.anew:
        lines.append("Its history was started anew on purpose: items of earlier requests are items to retain again.")
    return lines


def _request(entry: Entry) -> str:
    what = f"{entry.goal.capitalize()} of {TARGETS.get(entry.target, entry.target)}: {entry.extent}"
    if len(entry.positions):
        what += f" of the data, {NAMED.get(entry.selector, 'named one by one')}"
    when = "" if entry.date is None else f", on {entry.date[:10]}"
    return f"{what}. Answered by {entry.by}{when}."


def _shown(card: Mapping[str, Any] | None) -> list[str]:
    if card is None:
        return section("What was shown", ["Nothing: no measurement came with these weights."])
    level, name = _part(card, "level"), _part(card, "level_name")
    rows = [[str(claim["level"]), str(claim["name"]), str(claim["verdict"])] for claim in _part(card, "claims")]
    head = [f"Level {level}, {name}. {_part(card, 'statement')}"]
    untested = [str(line).split(":")[0] for line in _part(card, "not_tested")]
    tested = [f"Not tested: {'; '.join(untested)}."] if untested else []
    version = f"Measured and judged by msgm {__version__}."
    return [*section("What was shown", [*head, *tested, version]), "", *_claims(rows)]


def _claims(rows: Sequence[Sequence[str]]) -> list[str]:
    return table(["level", "claim", "verdict"], rows, left=3)


def _part(card: Mapping[str, Any], key: str) -> Any:
    if key not in card:
        raise UserError(f"save_pretrained: card: expected what Report.card returns; it has no {key!r}.")
    return card[key]
