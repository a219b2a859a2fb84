"""The code in README.md and docs/ runs, page by page and in the order of the page, on settings that take seconds."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from msgm import cli
from msgm.config import load_config
from msgm.diffusion.guidance import GUIDANCE
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HOWTOS = [page for page in sorted((ROOT / "docs" / "howto").glob("*.md")) if page.stem != "score-sde"]
"""All but the one that needs another project's script, and says that it was not run."""
PAGES = [README, ROOT / "docs" / "tutorial.md", *HOWTOS]
PAGES += [
    ROOT / "docs" / "reference" / f"{name}.md"
    for name in ("classifier", "commands", "measures", "recommender", "requests")
]
TINY = {
    "network": {"channels": [8]},
    "training": {"steps": 2, "batch_size": 8, "trackers": []},
    "finetune": {"steps": 2, "batch_size": 8},
    "sampling": {"steps": 3},
    "evaluation": {"samples": 20, "nll_items": 2, "likelihood": {"steps": 2}, "judge": {"epochs": 1}},
    "rows": {"obtuse": {"training": {"steps": 2}}},
}
LONG = ("commands", "read-a-card", "diffusers", "recommender", "measures")
"""Pages that take a quarter of a minute or more."""
NOT_RUN = {
    "git clone": "needs the network",
    "python diffusers/": "a script of another project",
    "accelerate launch": "needs GPUs and CIFAR-10; its arguments are checked",
    "scripts/gpu_table.sh": "needs a GPU and CIFAR-10; tests/test_gpu_table.py runs it on digits",
    "torchrun": "its arguments are checked; tests/training/test_processes.py runs two processes",
    "pip install": "the tests run in an installed package",
    "msgm compare letters.yaml": "tests/study/test_fifth.py runs the same",
    "msgm tune letters.yaml": "tests/study/test_fifth.py runs the same",
    "msgm classifier compare": "tests/classifier/test_compare.py runs the same",
    "msgm compare configs/classifier": "tests/classifier/test_compare.py runs the same",
    "msgm compare configs/recommender": "tests/recommender/test_compare.py runs the same",
    "msgm classifier audit TARGET": "tests/classifier/test_audit.py runs the same",
    "msgm recommender serve": "goes on until it is stopped; tests/recommender/serving starts it",
    "curl localhost:8000": "needs that server; tests/recommender/serving sends the same",
    "msgm recommender compare": "tests/recommender/test_compare.py runs the same",
    "MSGM_DATA=": "needs MovieLens",
    "msgm compare digits/guidance": "trains for minutes; tests/generator/test_guided_rows.py runs a tiny one",
    "msgm compare digits/items": "trains for minutes; tests/evaluation/test_ruled_judges.py judges its samples",
    "msgm sample runs/guidance": "tests/generator/test_guided_rows.py samples such a row",
    "msgm compare digits/shards": "trains for minutes; tests/generator/test_sharded_rows.py runs a tiny one",
    "msgm sample runs/shards": "tests/generator/test_sharded_rows.py samples such a row",
    "msgm unlearn digits/shards": "tests/generator/test_sharded_rows.py deletes from such a row",
    "msgm evaluate runs/shards-42": "tests/generator/test_sharded_rows.py evaluates such a run",
    "msgm forget-traces runs/shards-42": "tests/training/test_deleting.py lists the traces of such a run",
    "msgm compare digits/class": "trains for minutes; tests/generator/test_conditional.py runs a tiny one",
    "msgm tune configs/digits/vp.yaml --trials 20": "trains for hours; docs/howto/tune.md has a short one",
    "msgm compare digits/vp_band --jobs": "trains for minutes; tests/generator/test_jobs.py runs a tiny one",
    "msgm compare digits/vp_band --cluster": "needs a cluster; tests/generator/test_jobs.py runs a tiny one",
}
"""Beginnings of commands that are not run here, and why."""
FILLED = {"CONFIG": "configs/digits/vp.yaml", "RUN": "runs/digits-vp", "LOG": "log.csv"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of a page's blocks of code, in order."""
    return re.findall(r"^```(sh|python|yaml)\n(.*?)^```", page.read_text(), flags=re.S | re.M)


def commands(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s#\s.*", "", line).strip() for line in lines) if line and line[0] != "#"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with tiny stand-ins of the configs, a base run and a diffusers folder."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "configs" / "recommender", folder / "configs" / "recommender")
    shutil.copytree(ROOT / "configs" / "classifier", folder / "configs" / "classifier")
    for name in ("vp", "ddpm"):
        config = folder / "configs" / "digits" / f"{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump({"extends": str(ROOT / "configs" / "digits" / f"{name}.yaml")} | TINY))
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder / "path" / "to" / "ddpm-folder")
    rng = np.random.default_rng(0)
    people, things = rng.integers(0, 60, 900), rng.integers(0, 30, 900)
    rows = sorted({(f"c{u}", f"s{i}") for u, i in zip(people, things, strict=True)})
    (folder / "events.csv").write_text(
        "customer,sku,at\n" + "".join(f"{u},{i},{10**9 + n}\n" for n, (u, i) in enumerate(rows))
    )
    (folder / "log.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    (folder / "customers.csv").write_text("customer,plan\n" + "".join(f"c{u},{'ab'[u % 2]}\n" for u in range(60)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "configs/digits/vp.yaml", "--out", "runs/digits-vp", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def place(start, tmp_path, monkeypatch):
    """A copy of that folder, in which a page is followed; what its plugins register is taken back."""
    folder = shutil.copytree(start, tmp_path / "place")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    known = [(registry, dict(registry.entries)) for registry in (OBJECTIVES, EDITS, GUIDANCE)]
    yield folder
    for registry, entries in known:
        registry.entries.clear()
        registry.entries.update(entries)


def follow(language: str, text: str) -> None:
    """Do what a page says in one block of code."""
    name = re.match(r"# (\S+\.(?:py|ya?ml))\n", text)
    if language == "yaml":
        if name:
            Path(name[1]).write_text(smaller(text))
    elif language == "python" and name:
        Path(name[1]).write_text(text)
    elif language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "page", "exec"), {"__name__": "page"})
        lines = iter(printed.getvalue().splitlines())
        for said in re.findall(r"^print\(.*\)  # (.*)$", text, flags=re.M):
            assert any(f"{said}:".startswith(f"{line}:") for line in lines), f"the page says that it prints {said}"
    else:
        for command in commands(text):
            perform(command)


def smaller(text: str) -> str:
    """Return a config that takes seconds: of generators with tiny sections, of others with fewer epochs and models."""
    config = yaml.safe_load(text)
    if "process" in config:
        return yaml.safe_dump(config | TINY)
    return text.replace("epochs: 20", "epochs: 1").replace("seeds: 3", "seeds: 1").replace("retrains: 5", "retrains: 1")


def perform(command: str) -> None:
    """Run one line of shell, with placeholders filled in and what stands in brackets, which is optional, left out."""
    if any(command.startswith(beginning) for beginning in (*NOT_RUN, "--set ")):
        return
    if not command.startswith("msgm "):
        words = shlex.split(command)
        words[0] = sys.executable if words[0] == "python" else words[0]
        subprocess.run(words if words[0] == sys.executable else command, shell=words[0] != sys.executable, check=True)
        return
    arguments = [FILLED.get(word, word) for word in shlex.split(re.sub(r" \[[^]]*\]", "", command))[1:]]
    if "configs/digits/vp.yaml" in arguments and "--out" not in arguments and arguments[0] != "data":
        arguments += ["--out", f"runs/{len(list(Path('runs').iterdir()))}"]
    if "runs/digits-vp" in arguments and arguments[0] == "train":
        shutil.rmtree("runs/digits-vp")
    if arguments[0] == "report":
        assert cli.main(["evaluate", "runs/digits-vp", "--device", "cpu"]) == 0
    assert cli.main(arguments) == 0, command


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in LONG), id=page.stem) for page in PAGES]
)
def test_a_page_can_be_followed(page, place):
    for language, text in blocks(page):
        follow(language, text)


def test_the_readme_leads_with_the_two_lines():
    assert blocks(README)[0][1].splitlines() == [
        "pip install -e . && msgm compare configs/digits/vp.yaml",
        "pip install -e '.[dev]' && pytest",
    ]


RESULTS = [
    command
    for page in sorted((ROOT / "docs" / "results").glob("*.md"))
    for language, text in blocks(page)
    for command in (commands(text) if language == "sh" else [])
    if command.startswith("msgm ")
]


@pytest.mark.parametrize("command", sorted(set(RESULTS)))
def test_commands_of_results_take_their_options(command):
    assert cli.parser().parse_args(shlex.split(command)[1:])


LAUNCHED = [
    command
    for page in PAGES
    for language, text in blocks(page)
    for command in (commands(text) if language == "sh" else [])
    if command.startswith(("accelerate launch", "torchrun"))
]


@pytest.mark.parametrize("command", sorted(set(LAUNCHED)))
def test_launched_scripts_exist_and_take_their_arguments(command):
    words = shlex.split(command)
    script = next(word for word in words if word.endswith(".py"))
    name = {"finetune.py": "unlearn"}.get(Path(script).name, Path(script).stem)
    arguments = [word for word in words[words.index(script) + 1 :] if word != "--config"]
    assert (ROOT / script).is_file()
    assert cli.parser().parse_args([name, *arguments])


def test_a_launched_script_trains(place, monkeypatch):
    script = str(ROOT / "scripts" / "train.py")
    given = ["--config", "configs/digits/vp.yaml", "--out", "runs/launched", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [script, *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    assert (place / "runs" / "launched" / "model" / "process.json").is_file()


REQUESTS = [
    command
    for page in PAGES
    for language, text in blocks(page)
    for command in (commands(text) if language == "sh" else [])
    if command.startswith("--set request")
]


@pytest.mark.parametrize("line", sorted(set(REQUESTS)))
def test_requests_are_settings(line):
    overrides = [word for word in shlex.split(line) if word != "--set"]
    assert load_config(ROOT / "configs/digits/vp.yaml", overrides).request.describe()
