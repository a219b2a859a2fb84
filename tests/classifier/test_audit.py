"""The audit of saved logits: its controls, its verdicts, and the files that it refuses."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS
from msgm.classifier.audit import Asked, audit
from msgm.classifier.metrics import METRICS
from msgm.classifier.outputs import Outputs
from msgm.errors import UserError

CLASSES = 4
SIZES = {"retain": 300, "forget": 80, "nonmembers": 120, "test": 120}
RETRAINS = 6


def make_outputs(seed, knows=("retain",), gone=None) -> Outputs:
    """Logits of a model that is surer of the items it was trained on; ``gone`` is a class it never saw."""
    world, draws = np.random.default_rng(99), np.random.default_rng(seed)
    logits, labels = {}, {}
    for part, size in SIZES.items():
        y = world.integers(0, CLASSES - 1, size) if part == "retain" else world.integers(0, CLASSES, size)
        if gone is None:
            y = world.integers(0, CLASSES, size)
        elif part == "forget":
            y = np.full(size, gone)
        difficulty = world.normal(size=(size, CLASSES))
        z = difficulty + draws.normal(scale=0.5, size=(size, CLASSES))
        z[np.arange(size), y] += 2.0 + (3.0 if part in knows else 0.0)
        if gone is not None and "forget" not in knows:
            z[:, gone] -= 8.0
        logits[part], labels[part] = z, y
    return Outputs(logits, labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An overfit original, retrained models and one more of these, of a request of instances and of a class."""
    place = tmp_path_factory.mktemp("logits")
    for name, gone in {"instances": None, "class": CLASSES - 1}.items():
        make_outputs(0, ("retain", "forget"), gone).save(place / name / "original.npz")
        for k in range(RETRAINS + 1):
            make_outputs(k + 1, gone=gone).save(place / name / f"retrain-{k}.npz")
    return place


def retrains(folder, kind="instances", count=RETRAINS):
    return [folder / kind / f"retrain-{k}.npz" for k in range(count)]


def audited(folder, out, target, kind="instances", **asked):
    original = folder / kind / "original.npz"
    return audit(folder / kind / f"{target}.npz", original, retrains(folder, kind), out, Asked(**asked))


def verdicts(made):
    return {claim["level"]: claim["verdict"] for claim in made.card["claims"]}


def flag(made):
    return next(check for check in made.card["claims"][0]["checks"] if check["name"] == "not flagged")


@pytest.mark.parametrize("kind", ["instances", "class"])
def test_a_held_out_retrained_model_is_not_flagged(folder, tmp_path, kind):
    made = audited(folder, tmp_path, f"retrain-{RETRAINS}", kind)
    assert [control["verdict"] for control in made.card["controls"]] == [PASS, PASS]
    assert flag(made)["holds"] is True
    assert verdicts(made)["C1"] == PASS
    assert made.card["level"] >= "C1"
    assert made.report["requests"]["audit"]["scope"] == kind


@pytest.mark.parametrize("kind", ["instances", "class"])
def test_the_original_is_flagged(folder, tmp_path, kind):
    made = audited(folder, tmp_path, "original", kind)
    assert flag(made)["holds"] is False
    assert set(verdicts(made).values()) == {FAIL}
    assert made.card["level"] == "C0"


def test_an_original_that_knows_nothing_more_makes_the_audit_inconclusive(folder, tmp_path):
    make_outputs(51).save(tmp_path / "original.npz")
    target = folder / "instances" / f"retrain-{RETRAINS}.npz"
    made = audit(target, tmp_path / "original.npz", retrains(folder), tmp_path / "out")
    assert made.card["controls"][0]["verdict"] == FAIL
    assert [verdicts(made)[level] for level in ("C1", "C2", "C3")] == [INCONCLUSIVE] * 3


def test_fewer_than_five_retrained_models_make_no_band(folder, tmp_path):
    place = folder / "instances"
    made = audit(place / f"retrain-{RETRAINS}.npz", place / "original.npz", retrains(folder, count=4), tmp_path)
    assert [control["verdict"] for control in made.card["controls"]] == [NOT_TESTED] * 2
    assert made.card["controls"][0]["evidence"] == "4 retrained models, of at least 5: more of these are needed"
    assert all(line["band"] is None for lines in made.card["numbers"].values() for line in lines)
    assert verdicts(made)["C1"] == INCONCLUSIVE


def test_all_metrics_of_outputs_are_measured_and_the_others_named(folder, tmp_path):
    made = audited(folder, tmp_path, f"retrain-{RETRAINS}")
    for name, metric in METRICS.entries.items():
        named = any(line.startswith(f"{name}: ") for line in made.card["not_tested"])
        assert named == (metric.live or metric.costly)
    assert any("only its outputs are here" in line for line in made.card["cannot_say"])


def test_the_report_is_one_of_classifiers(folder, tmp_path):
    made = audited(folder, tmp_path, f"retrain-{RETRAINS}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(json.dumps(made.report))
    assert [row["method"] for row in report["rows"]] == [f"retrain-{RETRAINS}", "do-nothing"]
    assert len(report["rows"][0]["retrain_band"]) == RETRAINS
    assert report["data"]["n"] == SIZES


def test_each_retrained_model_is_left_out_of_its_own_references(folder, tmp_path):
    made = audited(folder, tmp_path, f"retrain-{RETRAINS}")
    for model in made.report["rows"][0]["retrain_band"]:
        assert model["metrics"]["kl_forget"] > 0.05  # with itself among them, a sixth of the mean would be zero
    mean = np.mean([model["metrics"]["kl_forget"] for model in made.report["rows"][0]["retrain_band"]])
    assert abs(made.report["rows"][0]["per_seed"][0]["metrics"]["kl_forget"] / mean - 1) < 0.15


# Through the command


def test_the_command_writes_the_card_and_prints_the_numbers(folder, tmp_path, cli):
    place = folder / "class"
    options = ["--retrains", *retrains(folder, "class"), "--goal", "suppression", "--target", "concept"]
    target = place / f"retrain-{RETRAINS}.npz"
    done = cli("classifier", "audit", target, "--original", place / "original.npz", *options, "--out", tmp_path / "out")
    assert done.code == 0
    views = {"report.json", "card.json", "card.md", "card.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == views | {"traces.json"}
    assert "C1, behavioural." in done.out
    assert "C3 oracle-indistinguishable within a band: INCONCLUSIVE" in done.out
    assert "forget_accuracy" in done.out
    assert "Residue: NOT TESTED" in done.out
    assert json.loads((tmp_path / "out" / "card.json").read_text())["request"]["goal"] == "suppression"


def test_the_command_says_in_a_sentence_what_is_wrong(folder, tmp_path, cli):
    original = folder / "instances" / "original.npz"
    files = ["--original", original, "--retrains", tmp_path / "none.npz"]
    done = cli("classifier", "audit", original, *files, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "none.npz" in done.err


def test_the_audit_needs_no_torch(folder, tmp_path):
    place = folder / "instances"
    arguments = ["classifier", "audit", place / f"retrain-{RETRAINS}.npz", "--original", place / "original.npz"]
    arguments += ["--retrains", *retrains(folder), "--out", tmp_path]
    script = "import sys; from msgm.cli import main; sys.exit(main(sys.argv[1:]) or 3 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Bad input


def refused(folder, tmp_path, **changed) -> str:
    place = folder / "instances"
    files = {"target": place / f"retrain-{RETRAINS}.npz", "original": place / "original.npz"}
    given = files | {"retrains": retrains(folder), "out": tmp_path / "out"} | changed
    with pytest.raises(UserError) as error:
        audit(**given)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_no_retrained_models(folder, tmp_path):
    assert "--retrains" in refused(folder, tmp_path, retrains=[])


def test_a_retrained_model_that_is_another_file_over_again(folder, tmp_path):
    place = folder / "instances"
    copy = tmp_path / "copy.npz"
    for source in (place / f"retrain-{RETRAINS}.npz", place / "original.npz", place / "retrain-0.npz"):
        copy.write_bytes(source.read_bytes())
        message = refused(folder, tmp_path, retrains=[*retrains(folder), copy])
        assert str(copy) in message
        assert source.name in message
        assert ("--original" in message) == (source.name == "original.npz")
    assert "retrain-0" in refused(folder, tmp_path, retrains=[*retrains(folder), place / "retrain-0.npz"])
    assert "retrain-1" in refused(folder, tmp_path, target=place / "retrain-1.npz")


def test_files_of_other_items(folder, tmp_path):
    found = make_outputs(70)
    labels = dict(found.labels) | {"test": np.roll(found.labels["test"], 1)}
    Outputs(found.logits, labels).save(tmp_path / "labels.npz")
    message = refused(folder, tmp_path, original=tmp_path / "labels.npz")
    assert "labels_test" in message
    assert "labels.npz" in message
    short = {part: (z[:-1] if part == "forget" else z) for part, z in found.logits.items()}
    sizes = {part: (y[:-1] if part == "forget" else y) for part, y in found.labels.items()}
    Outputs(short, sizes).save(tmp_path / "short.npz")
    message = refused(folder, tmp_path, retrains=[*retrains(folder), tmp_path / "short.npz"])
    assert "logits_forget has shape (79, 4)" in message


def with_sources(outputs, of=lambda part, number: number % 2):
    """Outputs of two patients, whose items take turns."""
    codes = {part: y + CLASSES * of(part, np.arange(len(y))) for part, y in outputs.labels.items()}
    return replace(outputs, strata=codes)


def test_strata_are_read_and_items_without_controls_counted(folder, tmp_path):
    for k in range(RETRAINS + 1):
        found = make_outputs(k + 1)
        with_sources(found, lambda part, number: 7 * ((part == "forget") & (number < 5))).save(tmp_path / f"{k}.npz")
    with_sources(make_outputs(0, ("retain", "forget")), lambda part, n: 7 * ((part == "forget") & (n < 5))).save(
        tmp_path / "original.npz"
    )
    files = [tmp_path / f"{k}.npz" for k in range(1, RETRAINS + 1)]
    made = audit(tmp_path / "0.npz", tmp_path / "original.npz", files, tmp_path / "out")
    assert made.report["requests"]["audit"]["without_controls"] == 5
    assert any(line.startswith("Whether 5 of the 80 items to forget") for line in made.card["cannot_say"])
    plain = audited(folder, tmp_path / "plain", f"retrain-{RETRAINS}")
    assert plain.report["requests"]["audit"]["without_controls"] == 0
    assert not any("items to forget are given away" in line for line in plain.card["cannot_say"])


def test_files_of_other_strata(folder, tmp_path):
    with_sources(make_outputs(1)).save(tmp_path / "two.npz")
    message = refused(folder, tmp_path, target=tmp_path / "two.npz")
    assert "strata_retain differ from those of" in message


def test_a_missing_array(folder, tmp_path):
    found = make_outputs(71)
    kept = {part: z for part, z in found.logits.items() if part != "nonmembers"}
    Outputs(kept, found.labels).save(tmp_path / "less.npz")
    assert "logits_nonmembers is missing" in refused(folder, tmp_path, target=tmp_path / "less.npz")
    found = with_sources(found)
    replace(found, strata={"test": found.strata["test"]}).save(tmp_path / "some.npz")
    assert "strata_retain is missing, where other parts have" in refused(folder, tmp_path, target=tmp_path / "some.npz")


def test_a_scope_that_the_labels_contradict(folder, tmp_path):
    assert "--scope class" in refused(folder, tmp_path, asked=Asked(scope="class"))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("labels_test", lambda y: y + 0.5, "labels_test must hold whole numbers, got float64"),
        ("logits_test", lambda z: z.astype(str), "logits_test must hold real numbers"),
        ("logits_forget", lambda z: z[:, 0], "logits_forget must have two classes or more"),
        ("logits_forget", lambda z: z[:, :1], "logits_forget must have two classes or more"),
        ("labels_forget", lambda y: y[:0], "do not fit labels of shape (0,)"),
        ("logits_retain", lambda z: z * np.inf, "logits_retain hold numbers that are not finite"),
        ("labels_retain", lambda y: y + CLASSES, "labels_retain lie outside 0 to 3"),
        ("strata_test", lambda codes: codes + 0.5, "strata_test must hold whole numbers, got float64"),
        ("strata_test", lambda codes: codes[1:], "strata_test of shape (119,) do not fit labels of shape (120,)"),
        ("strata_test", lambda codes: codes * 0, "the stratum 0 holds items of several classes"),
    ],
)
def test_arrays_of_a_wrong_kind_or_shape(folder, tmp_path, name, change, words):
    with_sources(make_outputs(0)).save(tmp_path / "right.npz")
    with np.load(tmp_path / "right.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "wrong.npz", **arrays | {name: change(arrays[name])})
    assert words in refused(folder, tmp_path, target=tmp_path / "wrong.npz")


def test_files_of_another_format(folder, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((3, 2)))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").touch()
    damaged = "is no file of plain NumPy arrays, or it is damaged"
    for name, words in (
        ("one.npy", "the array logits_retain is missing"),
        ("text.npz", damaged),
        ("empty.npz", damaged),
    ):
        message = refused(folder, tmp_path, target=tmp_path / name)
        assert name in message
        assert words in message
        assert "pickle" not in message


def test_probabilities_are_no_logits_but_their_logarithms_are(folder, tmp_path):
    found = make_outputs(72)
    logs = {part: found.log_probabilities(part) for part in found.logits}
    Outputs({part: np.exp(z) for part, z in logs.items()}, found.labels).save(tmp_path / "p.npz")
    Outputs(logs, found.labels).save(tmp_path / "log-p.npz")
    message = refused(folder, tmp_path, target=tmp_path / "p.npz")
    assert "p.npz: every row lies in [0, 1] and sums to 1" in message
    assert "give log(p)" in message
    audit(tmp_path / "log-p.npz", folder / "instances" / "original.npz", retrains(folder), tmp_path / "out")
