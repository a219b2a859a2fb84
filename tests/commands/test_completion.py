"""What a shell completes with the script of ``msgm completion``."""

import shutil
import subprocess

import pytest

from msgm import configs


def completed(tmp_path, cli, words):
    """Return what bash offers for the last of ``words``, with the script that msgm prints."""
    outcome = cli("completion", "bash")
    assert outcome.code == 0, outcome.err
    (tmp_path / "msgm.bash").write_text(outcome.out)
    asked = " ".join(f"'{word}'" for word in words)
    lines = f"""
        source ./msgm.bash
        COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}
        entry=$(complete -p msgm); entry=${{entry##*-F }}; ${{entry%% *}} msgm '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    bash = ["bash", "--norc", "-c", lines]
    done = subprocess.run(bash, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["msgm", "comp"], ["compare", "completion"]),
        (["msgm", "classifier", "un"], ["unlearn"]),
        (["msgm", "tune", "--tri"], ["--trials"]),
        (["msgm", "compare", "--device", "c"], ["cpu", "cuda"]),
        (["msgm", "compare", "digits/vp"], ["digits/vp", "digits/vp_band"]),
    ],
)
def test_bash_completes_commands_options_choices_and_configs(tmp_path, cli, words, expected):
    assert completed(tmp_path, cli, words) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_a_config_by_files_too(tmp_path, cli):
    (tmp_path / "mine.yaml").touch()
    assert completed(tmp_path, cli, ["msgm", "compare", "mi"]) == ["mine.yaml"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(cli, shell):
    text = cli("completion", shell).out
    assert all(name in text for name in configs.names())
    assert "trials" in text
    assert "forget-traces" in text


def test_an_unknown_shell_is_refused(cli):
    with pytest.raises(SystemExit) as stopped:
        cli("completion", "sh")
    assert stopped.value.code == 2
