"""The command line. torch is imported when work starts, so that ``--help`` answers at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgm import __version__, threads
from msgm.arguments import (
    Commands,
    Parser,
    command,
    common,
    experiment,
    fresh_chain,
    metrics,
    names,
    overrides,
    received,
    settings,
)
from msgm.commands import (
    cache,
    classifier,
    compare,
    completion,
    doctor,
    folders,
    lists,
    recommender,
    starting,
    tune,
)
from msgm.commands.compare import say_written
from msgm.errors import Interrupted, RunError, UserError

if TYPE_CHECKING:
    from msgm.config import Config
    from msgm.diffusion import SamplingSettings
    from msgm.evaluation.restored import RestorationTask


CLOSED_PIPE = 128 + 13
"""Exit code of a process that SIGPIPE ends."""
RESTORING = ("batch_size", "guidance")
"""Settings of sampling that inpainting and reconstruction read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 for a failed run, 2 for bad input, 128 + signal when stopped."""
    try:
        options = parser().parse_args(arguments)
        code = _performed(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has gone, as head does
        return _drop_output(CLOSED_PIPE)
    except OSError as error:
        _complain(f"cannot write to the standard output: {error.strerror or error}.", 1)
        return _drop_output(1)
    except KeyboardInterrupt:
        return _complain("stopped.", 130)
    return code


def _performed(options: argparse.Namespace) -> int:
    """Run a command and return its exit code; an error is one sentence on stderr."""
    try:
        _refuse_other_modules(options)
        from msgm.downloads import downloading
        from msgm.plugins import trusting

        if hasattr(options, "threads"):
            threads.choose(options.threads)
        with trusting(getattr(options, "trust", False)), downloading(getattr(options, "download", False)):
            options.perform(options)
    except UserError as error:
        return _complain(error, 2)
    except Interrupted as error:
        return _complain(f"{error} {options.go_on}", error.code)
    except RunError as error:
        return _complain(error, 1)
    except MemoryError:
        return _complain("the machine has no memory left for this; take smaller batches or less data.", 1)
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"{error.filename2 or error.filename}: {error.strerror or error}.", 1)
    return 0


def _drop_output(code: int) -> int:
    """Return ``code`` and discard buffered output, so that nothing more is written at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


OF_ALL_MODULES = ("compare", "classifier", "recommender", "tune", "report", "data", "forget-traces", "verify", "config")
"""Commands that take what any of the modules makes or reads."""


def _refuse_other_modules(options: argparse.Namespace) -> None:
    """Refuse a config or folder of classifiers or recommenders where one of generators is expected."""
    if options.command in OF_ALL_MODULES:
        return
    given = [getattr(options, key, None) for key in ("config", "source", "run")] + getattr(options, "runs", [])
    for path in filter(None, given):
        from msgm.settings import module_of

        module = module_of(Path(path))
        if module in ("classifier", "recommender"):
            raise UserError(f"{path} is a {module}'s: use msgm {module} ..., see msgm {module} --help.")
        if module is not None:
            raise UserError(f"{path} is of the domain {module}: its configs are for msgm compare and msgm tune.")


def script(command: str) -> int:
    """Run ``command`` for a file of scripts/, where the config may also be given as ``--config CONFIG``."""
    arguments = sys.argv[1:]
    if command != "evaluate" and "--config" in arguments:
        arguments.remove("--config")
    return main([command, *arguments])


def _complain(error: object, code: int) -> int:
    print(f"msgm: {error}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = Parser(prog="msgm", description="Make a trained model forget, and show honestly what it forgot.")
    top.add_argument("--version", action="version", version=f"msgm {__version__}")
    commands = top.add_subparsers(title="commands", required=True, dest="command", metavar="COMMAND")

    for add in (_add_training, _add_sampling, _add_evaluation, _add_restoration):
        add(commands)
    for module in (compare, folders, classifier, recommender, tune, starting, lists, doctor, cache):
        module.add(commands)
    completion.add(commands, parser)
    return top


def _add_training(commands: Commands) -> None:
    train = command(commands, "train", _train, "train a model from random weights with the config's objective")
    experiment(train)
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")

    unlearn = command(commands, "unlearn", _unlearn, "fine-tune a trained model, or delete from a sharded one")
    experiment(unlearn)
    unlearn.add_argument("--from", dest="source", metavar="RUN", required=True, help="a run or a diffusers folder")
    unlearn.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    fresh_chain(unlearn)
    received(unlearn)


def _add_sampling(commands: Commands) -> None:
    sample = command(
        commands,
        "sample",
        _sample,
        "sample a trained model into a picture, an array or a folder of PNG files. Samples that are there already are "
        "kept: the same ones are not made again, and others are replaced with --overwrite alone",
    )
    sample.add_argument("run", metavar="RUN", help="a run or a diffusers folder")
    sample.add_argument("-n", "--count", type=int, default=64, help="number of samples (64)")
    sample.add_argument("--sampler", help="see msgm samplers; by default the run's own")
    sample.add_argument("--steps", type=int, help="grid steps; by default the run's own")
    sample.add_argument(
        "--format",
        default="grid,npz",
        metavar="NAME,NAME",
        help="grid: samples.png, the first 100; npz: samples.npz; png: a folder of numbered files (grid,npz)",
    )
    _ask(sample, "by default for none")
    sample.add_argument("--resume", action="store_true", help="go on with samples that were stopped")
    sample.add_argument("--overwrite", action="store_true", help="replace other samples, or stopped ones")
    overrides(sample)
    common(sample)
    received(sample)


def _add_evaluation(commands: Commands) -> None:
    evaluate = command(commands, "evaluate", _evaluate, "measure trained models as compare does")
    evaluate.add_argument("runs", metavar="RUN", nargs="+", help="runs or diffusers folders")
    metrics(evaluate, "what to measure; a report of an earlier call is replaced")
    evaluate.add_argument("--config", help="the experiment: data, request and protocol; by default the first run's own")
    overrides(evaluate)
    common(evaluate)
    received(evaluate)


def _add_restoration(commands: Commands) -> None:
    inpaint = command(commands, "inpaint", _inpaint, "remove a part of test items, have a model fill it in, measure it")
    _restoration(inpaint)
    inpaint.add_argument(
        "--mask",
        required=True,
        help="what is REMOVED: the upper, lower, left or right half; rows:32-47, both included; "
        "box:top,left,height,width; the white pixels of an image file of the items' size; for vectors dims:0,2",
    )
    inpaint.add_argument("--sampler", default="reverse-diffusion", help="see msgm samplers (reverse-diffusion)")
    inpaint.add_argument("--steps", type=int, default=100, help="grid steps (100)")
    inpaint.add_argument(
        "--resamples", type=int, default=10, help="how often a step is taken (10); 1 is the plain, biased projector"
    )

    reconstruct = command(commands, "reconstruct", _reconstruct, "have a model reconstruct test items, measure it")
    _restoration(reconstruct)
    reconstruct.add_argument(
        "--method",
        choices=["encode", "sdedit"],
        default="encode",
        help="encode: PF-ODE to the latent and back with noise between, the paper's; sdedit: noise, then sample down",
    )
    reconstruct.add_argument("--t", type=float, help="time of the noise, in (0, 1] (encode .02, sdedit .3)")
    reconstruct.add_argument("--sampler", default="dpm++2m-sde", help="of sdedit; see msgm samplers (dpm++2m-sde)")
    reconstruct.add_argument("--steps", type=int, default=100, help="of encode each way, or of sdedit's grid (100)")


def _restoration(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run or a diffusers folder")
    command.add_argument("-n", "--count", type=int, default=100, help="test items to retain, and to forget (100)")
    _ask(command, "by default for each item's own class")
    command.add_argument("--config", help="the experiment: data, request and judge; by default the run's own")
    overrides(command)
    common(command)
    received(command)


def _ask(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--ask",
        default="",
        metavar="K,K",
        help=f"numbers of classes that a class-conditional model is asked for, in turn; {default}",
    )


def _asked(options: argparse.Namespace) -> list[int]:
    from msgm.ids import as_index

    return [as_index(label, "--ask") for label in names(options.ask) if options.ask]


def _config(options: argparse.Namespace) -> "Config":
    from msgm.config import load_config

    metrics = [f"evaluation.metrics=[{options.metrics}]"] if getattr(options, "metrics", None) else []
    return load_config(options.config, settings(options) + metrics)


def _single_process(options: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"{options.command} runs in one process; train, unlearn, compare, evaluate and sample run in many."
        )


def _train(options: argparse.Namespace) -> None:
    config = _config(options)
    from msgm.training import train

    print(f"wrote {train(config, options.out, options.resume, options.device).path}")


def _unlearn(options: argparse.Namespace) -> None:
    config = _config(options)
    from msgm.training import unlearn

    given = (options.source, options.out, options.resume, options.device, options.fresh_chain)
    print(f"wrote {unlearn(config, *given).path}")


def _sample(options: argparse.Namespace) -> None:
    from msgm.generator.sample import sample_run, sampling_settings

    settings = sampling_settings(options.run, options.sampler, options.steps, options.set)
    formats = names(options.format)
    given = (options.run, options.count, settings, options.seed or 0)
    where, keep, ask = (options.out, options.device), (options.resume, options.overwrite), _asked(options)
    for path in sample_run(*given, *where, formats, *keep, ask):
        print(f"wrote {path}")


def _inpaint(options: argparse.Namespace) -> None:
    config, settings = _restored_config(options)
    from msgm.evaluation.restored import InpaintingTask

    _restore(options, config, InpaintingTask(settings, options.mask, options.resamples))


def _reconstruct(options: argparse.Namespace) -> None:
    config, settings = _restored_config(options)
    from msgm.evaluation.restored import ReconstructionTask

    _restore(options, config, ReconstructionTask(settings, options.method, options.t))


def _restore(options: argparse.Namespace, config: "Config", task: "RestorationTask") -> None:
    from msgm.generator.restore import restore_run

    given = (options.run, config, task, options.count, options.seed or 0, options.out, options.device)
    for path in restore_run(*given, _asked(options)):
        print(f"wrote {path}")


def _restored_config(options: argparse.Namespace) -> "tuple[Config, SamplingSettings]":
    """Return the run's config and sampling settings; ``--seed`` sets the noise only, not the judge."""
    _single_process(options)
    own = Path(options.run) / "config.yaml"
    if options.config is None and Path(options.run).is_dir() and not own.is_file():
        raise UserError(f"{options.run} is no run with a config of its own; say with --config what its data are.")
    from msgm.config import SECTIONS, load_config
    from msgm.diffusion import SamplingSettings
    from msgm.plugins import load_received

    for override in options.set:
        section, _, key = override.partition("=")[0].partition(".")
        if section == "sampling" and key not in RESTORING:
            raise UserError(
                f"--set {override}: {options.command} reads {' and '.join(RESTORING)} of this section alone; its own "
                "options are --sampler and --steps."
            )
    config = load_config(options.config or load_received(Path(options.run), SECTIONS), options.set)
    read = {key: getattr(config.sampling, key) for key in RESTORING}
    return config, SamplingSettings(options.sampler, options.steps, **read)


def _evaluate(options: argparse.Namespace) -> None:
    own = Path(options.runs[0]) / "config.yaml"
    if options.config is None and Path(options.runs[0]).is_dir() and not own.is_file():
        raise UserError(f"{options.runs[0]} is no run with a config of its own; say with --config what to measure.")
    from msgm.config import SECTIONS
    from msgm.generator.evaluate import evaluate
    from msgm.plugins import load_received

    options.config = options.config or load_received(Path(options.runs[0]), SECTIONS)
    config = _config(options)

    run = evaluate(config, options.runs, options.out, options.device)
    say_written(run.path)


if __name__ == "__main__":
    sys.exit(main())
