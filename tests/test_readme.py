"""Every command and every piece of Python in README.md runs, on settings that take seconds."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from msgm import cli
from msgm.config import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TINY = """\
extends: {original}
network: {{channels: [8]}}
training: {{steps: 2, batch_size: 8, trackers: []}}
finetune: {{steps: 2, batch_size: 8}}
sampling: {{steps: 3}}
evaluation: {{samples: 20, nll_items: 2, likelihood: {{steps: 2}}, judge: {{epochs: 1}}}}
rows: {{obtuse: {{training: {{steps: 2}}}}}}
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.S | re.M)


def commands():
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.strip()]


def msgm_arguments(command):
    """The arguments of a README line `msgm ...`, its placeholders filled in and its optional parts left out."""
    command = re.sub(r"\[[^]']*\]", "", command) if "plugins" not in command else command
    filled = command.replace("CONFIG", "configs/digits/vp.yaml").replace("RUN", "runs/digits-vp")
    return shlex.split(filled)[1:]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny stand-ins of the configs, a base run, a diffusers folder and the README's objective."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("vp", "ddpm"):
        config = folder / "configs" / "digits" / f"{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TINY.format(original=ROOT / "configs" / "digits" / f"{name}.yaml"))
    (folder / "negative.py").write_text(next(block for block in blocks("python") if "# negative.py" in block))
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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "configs/digits/vp.yaml", "--out", "runs/digits-vp", "--device", "cpu"]) == 0
    return folder


def test_readme_leads_with_the_two_lines():
    assert blocks("sh")[0].splitlines() == [
        "pip install -e . && msgm compare configs/digits/vp.yaml",
        "pip install -e '.[dev]' && pytest",
    ]


@pytest.mark.parametrize("command", [c for c in commands() if re.match("msgm (?!classifier|recommender)", c)])
def test_msgm_commands_run(command, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    arguments = msgm_arguments(command)
    if arguments[0] in ("report", "sample", "evaluate"):
        assert cli.main(["evaluate", "runs/digits-vp", "--device", "cpu"]) == 0
    elif "--out" not in arguments and arguments[0] not in ("data", "forget-traces", "verify"):
        arguments += ["--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("--set request")])
def test_requests_are_settings(line):
    request = load_config(
        ROOT / "configs/digits/vp.yaml", [word for word in shlex.split(line) if word != "--set"]
    ).request
    assert request.describe()


def test_a_forgotten_diffusers_model_loads_in_diffusers(place, monkeypatch):
    monkeypatch.chdir(place)
    if not Path("runs/forgotten").exists():
        assert cli.main(msgm_arguments(next(c for c in commands() if "ddpm-folder" in c))) == 0
    line = next(c for c in commands() if c.startswith("python -c"))
    program = shlex.split(line)[2]
    exec(program, {})
    assert Path("x.png").is_file()


@pytest.mark.parametrize("command", [c for c in commands() if "accelerate launch" in c or "torchrun" in c])
def test_launched_scripts_exist_and_take_their_arguments(command):
    words = shlex.split(command)
    script = next(word for word in words if word.endswith(".py"))
    name = {"train.py": "train", "finetune.py": "unlearn"}[Path(script).name]
    arguments = [word for word in words[words.index(script) + 1 :] if word != "--config"]
    assert (ROOT / script).is_file()
    assert cli.parser().parse_args([name, *arguments]).config.endswith(".yaml")


def test_a_launched_script_trains(place):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", "configs/digits/vp.yaml"]
    done = subprocess.run(
        [*command, "--out", "runs/launched", "--device", "cpu"], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (place / "runs" / "launched" / "model" / "process.json").is_file()


def test_the_python_example_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    example = next(block for block in blocks("python") if block.startswith("import msgm"))
    names = {}
    exec(example, names)
    assert names["images"].shape == (64, 1, 8, 8)
