"""What models show when they are asked by prompts: the forgotten word, synonyms, compositions, others."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from msgm.data import dequantise
from msgm.diffusion import VP, ScoreModel
from msgm.errors import UserError
from msgm.evaluation import Subject
from msgm.evaluation.judges.cells import item_classes
from msgm.evaluation.ladder import view_checks
from msgm.evaluation.metrics.prompts import DRAWN, Prompts, prompt_sets, reached, unscored
from msgm.generator.cells import _picture
from msgm.requests import ForgetRequest
from tests.evaluation.benches import digits_bench
from tests.evaluation.canvases import SEVEN, TWO, WORDS, canvas_bench, canvases, vocabulary
from tests.evaluation.test_ladder import a_report, a_row

CONCEPT = ForgetRequest(concept={"forget": ["seven"]})
BLACK = -torch.ones(1, 8, 16)
SHOWN = ("word", "synonyms", "compositions", "others")


def bench(*overrides):
    made = canvas_bench(*overrides)
    return replace(made, config=replace(made.config, request=CONCEPT))


class Given(Subject):
    """A model that shows real test items of the classes that ``gives`` makes of those that a prompt names."""

    def gives(self, named):
        return named

    def asked_for(self, labels, count=None):
        return torch.stack([self.shown(self.gives(canvases().named[labels[k % len(labels)]]), k) for k in range(count)])

    def shown(self, classes, number):
        """Return a canvas with real held-out digits of so many classes, the first one left; black without any."""
        places = [BLACK[:, :, :8]] * 2
        for place, k in enumerate(classes):
            own = np.array([i for i in self.bench.split.test.all if item_classes(canvases(), np.array([i]))[0] == (k,)])
            item = dequantise(canvases().take(own[[number % len(own)]]), 17)[0]
            halves = item[:, :, :8], item[:, :, 8:]
            places[place] = max(halves, key=lambda half: float(half.sum()))
        return torch.cat(places, dim=2)


class Redirected(Given):
    """Gives a two for every seven."""

    def gives(self, named):
        return tuple(TWO if k == SEVEN else k for k in named)


class Swapped(Given):
    """Puts pairs the other way round."""

    def gives(self, named):
        return named[::-1]


class Black(Given):
    """Gives black pictures for prompts that name the seven."""

    def gives(self, named):
        return () if SEVEN in named else named


def model(network=None):
    network = network or SimpleNamespace(classes=len(canvases().prompts))
    return ScoreModel(network, VP(), (1, 8, 16))


def measured(kind, samples=40):
    return Prompts(samples).measure(kind("given", model(), bench()))["prompts"]


def values(found, number):
    return [found[name][number]["value"] for name in SHOWN]


def test_prompts_fall_into_sets():
    prompts, named = vocabulary()
    sets = {
        name: [prompts[k] for k in numbers] for name, numbers in prompt_sets(prompts, named, ["seven"], [7]).items()
    }
    assert sets["word"] == ["seven"]
    assert sets["synonyms"] == ["7", "the digit after six"]
    pairs = {f"seven and {other}" for other in WORDS} | {f"{other} and seven" for other in WORDS}
    assert set(sets["compositions"]) == {"a seven on the left"} | pairs
    assert len(sets["others"]) == len(prompts) - 4 - len(pairs)
    assert not any("seven" in prompt for prompt in sets["others"] if prompt != "the digit after seven")


def test_without_a_concept_every_word_of_a_class_is_a_synonym():
    sets = prompt_sets(["seven", "7", "two"], [(7,), (7,), (2,)], [], [7])
    assert sets == {"word": [], "synonyms": [0, 1], "compositions": [], "others": [2]}


def test_a_model_that_draws_all_rightly_has_forgotten_nothing():
    found = measured(Given)
    assert all(value > 0.9 for value in values(found, "accuracy"))
    assert all(value < 0.1 for value in values(found, "UA")[:3])
    assert found["others"]["UA"]["value"] > 0.9
    assert all(value < 0.1 for value in values(found, "junk_rate"))
    assert [found[name]["UA"]["n"] for name in SHOWN] == [40] * 4
    assert found["word"]["asked"] == ["seven"]
    assert len(found["others"]["asked"]) == 40
    low, value, high = (found["word"]["accuracy"][key] for key in ("low", "value", "high"))
    assert low < value <= high


def test_a_two_for_every_seven_is_forgotten_and_not_right():
    found = measured(Redirected)
    assert all(value > 0.9 for value in values(found, "UA"))
    assert values(found, "unlearning_ratio") == [pytest.approx(1 - value) for value in values(found, "UA")]
    assert all(value < 0.1 for value in values(found, "accuracy")[:3])
    assert found["others"]["accuracy"]["value"] > 0.9


def test_pairs_in_the_wrong_order_are_wrong_and_show_the_seven_all_the_same():
    found = measured(Swapped)
    assert found["word"]["accuracy"]["value"] > 0.9
    assert found["compositions"]["accuracy"]["value"] < 0.2
    assert found["compositions"]["UA"]["value"] < 0.1


def test_black_pictures_are_junk():
    found = measured(Black)
    assert values(found, "junk_rate")[:3] == [1, 1, 1]
    assert values(found, "unlearning_ratio")[:3] == [0, 0, 0]
    assert found["others"]["junk_rate"]["value"] < 0.1


def test_samples_that_are_not_finite_are_junk():
    class Broken(Given):
        def asked_for(self, labels, count=None):
            samples = super().asked_for(labels, count)
            samples[..., 0, 0] = torch.inf  # a white corner, which the judge looks past
            return samples

    assert values(measured(Broken, 5), "junk_rate") == [1, 1, 1, 1]


def share(value, n=100):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": n}


def row(name="mine", ua=1.0, accuracy=1.0, **more):
    found = {"UA": share(ua), "accuracy": share(accuracy), "junk_rate": share(0.02)}
    return {"name": name, "seed": 0, "prompts": dict.fromkeys(SHOWN, found)} | more


def test_a_set_that_the_base_does_not_draw_is_not_scored():
    drawn, poor = row("do-nothing", accuracy=DRAWN), row("do-nothing", accuracy=DRAWN - 0.001)
    assert unscored(row(), {"rows": [drawn]}, "word") is None
    assert unscored(row(), {"rows": [poor]}, "word") == "not scored (do-nothing 94.9)"
    assert unscored(row(), {"rows": [row()]}, "word") == unscored(row(), {}, "word") == "not scored (no do-nothing)"
    cells = [column.cell(row(), {"rows": [poor]}) for column in Prompts.columns]
    assert cells[:4] == ["not scored (do-nothing 94.9)"] * 4
    assert cells[4:] == ["100.0 / 100.0 / 100.0 / 100.0", "2.0 / 2.0 / 2.0 / 2.0"]
    assert Prompts.columns[0].cell(row(), {"rows": [drawn]}) == "100.0 [99.0, 101.0]"
    scored, not_scored = (Prompts.numbers(row(), {"rows": [base]}) for base in (drawn, poor))
    assert (scored["UA % word"], scored["accuracy % others"]) == (100, 100)
    assert (not_scored["UA % word"], not_scored["accuracy % others"], not_scored["junk % word"]) == (None, None, 2)
    assert Prompts.granularity(row())["UA % word"] == 1


def test_a_row_is_held_against_the_base_of_its_seed():
    rows = [row("do-nothing", accuracy=1.0), row("do-nothing", accuracy=0.5) | {"seed": 1}]
    assert unscored(row(), {"rows": rows}, "word") is None
    assert unscored(row() | {"seed": 1}, {"rows": rows}, "word") == "not scored (do-nothing 50.0)"
    assert unscored(row() | {"seed": 100}, {"rows": rows}, "word") is None


def judged(name, ua, kept, start="finetune"):
    numbers = {"UA % word": ua, "accuracy % others": kept, "junk % word": 1.0}
    return {"name": name, "start": start, "metrics": {heading: {"value": value} for heading, value in numbers.items()}}


@pytest.mark.parametrize(("gone", "holds"), [(0.0, True), (0.5, False)])
def test_a_model_that_gives_the_content_for_a_scored_set_has_not_forgotten(gone, holds):
    asked = {"unlearning_ratio": {"value": gone, "low": gone, "high": gone + 0.01, "n": 100}, "UA": share(1 - gone)}
    numbers = {f"UR % asked for {name}": {"value": 100 * gone} for name in ("word", "synonyms")}
    made = a_row("mine", prompts={"word": asked, "synonyms": asked, "others": None}, metrics=numbers)
    base = a_row("do-nothing", prompts={"word": {"accuracy": share(1.0)}, "synonyms": {"accuracy": share(0.9)}})
    report = a_report(base, made)
    assert [check.holds for check in view_checks(report, made)] == [holds]
    assert [check.name[:20] for check in view_checks(report, made)] == ["UR % asked for word "]
    made["metrics"]["UR % asked for word"]["value"] = None
    assert view_checks(report, made) == []


def test_one_line_says_which_methods_reach_it():
    base = judged("do-nothing", 2.0, 98.0, "none")
    rows = [base, judged("a", 99.0, 96.0), judged("b", 98.9, 98.0), judged("c", 100.0, 95.9), judged("d", None, 98.0)]
    rows += [judged("unseen-scratch", 100.0, 98.0, "scratch"), judged("e", 100.0, 99.0, "edit")]
    text = reached({"rows": rows})
    assert text == (
        "UA of the word at least 99%, accuracy of others within 2 points of do-nothing (98.0%): a (UA 99.0%, others "
        "96.0%, junk of the word 1.0%), e (UA 100.0%, others 99.0%, junk of the word 1.0%)."
    )
    assert reached({"rows": [base]}).endswith(": no method.")
    assert reached({"rows": rows[1:]}) == reached({"rows": [judged("do-nothing", 2.0, None, "none")]})
    assert "cannot be said" in reached({"rows": []})


class Network(nn.Module):
    """Puts out x / 2 less half the grey of each label, and keeps the labels that it was asked for."""

    classes = len(vocabulary()[0])

    def __init__(self, scale=1.0, prompts=None):
        super().__init__()
        self.weight, self.scale, self.asked = nn.Parameter(torch.tensor(0.5)), scale, []
        if prompts is not None:
            self.prompts = prompts

    def forward(self, x, label, condition=None):
        self.asked.append(None if condition is None else condition.labels.tolist())
        grey = torch.zeros(len(x)) if condition is None else self.scale * (condition.labels + 1).clamp(max=20) / 20
        return self.weight * (x - grey[:, None, None, None])


def test_prompts_are_asked_for_in_turn():
    network = Network()
    Prompts(5).measure(Subject("asked", model(network), bench()))
    prompts = canvases().prompts
    seen = [[prompts[k] for k in asked] for asked in network.asked]
    assert seen[0] == ["seven"] * 5
    assert seen[3] == ["7", "the digit after six"] * 2 + ["7"]
    assert len(set(seen[6])) == 5


def test_a_picture_has_a_row_for_the_forgotten_word_and_for_other_prompts():
    network = Network()
    picture = Image.open(io.BytesIO(_picture(Subject("asked", model(network), bench()))))
    assert network.asked[0] == [SEVEN, 0, 1, 2, 3, 4, 5, 6, 8, 9] * 10
    assert picture.width > picture.height  # ten columns of canvases that are twice as wide as they are high


def test_a_model_of_other_prompts_is_not_tested():
    fewer = SimpleNamespace(classes=10)
    for network in (fewer, Network(prompts=["seven", "7"])):
        found = Prompts().measure(Subject("other", model(network), bench()))
        assert found == {"prompts": {"not_tested": "the model is not asked for the data's prompts"}}
        assert Prompts.numbers(found, {}) == Prompts.granularity(found) == {}
        assert {column.cell(found, {}) for column in Prompts.columns[:4]} == {"-"}
    for more in ((), ("a seven of gold",)):
        same = Network(prompts=(*canvases().prompts, *more))
        assert Prompts(1).measure(Subject("same", model(same), bench()))["prompts"]["word"]["UA"]["n"] == 1


def test_guidance_is_that_of_the_evaluation_and_applied_once():
    """eps(null) + 2 (eps(c) - eps(null)) of this network is eps(c) of one with twice the pull; twice that is four."""
    guided = Subject("guided", model(Network()), bench("sampling.guidance=2")).asked_for([3, 4], 6)
    doubled = Subject("doubled", model(Network(2.0)), bench()).asked_for([3, 4], 6)
    assert torch.allclose(guided, doubled, atol=1e-5)


def test_data_whose_prompts_name_no_classes_is_refused():
    made = digits_bench()
    with pytest.raises(UserError, match=r"^evaluation.metrics: prompts needs data whose prompts name classes"):
        Prompts().check(made.config, made.dataset, made.split)
    made = bench("evaluation.judge.kind=clip")
    with pytest.raises(UserError, match=r"the judge cells; the judge is clip.$"):
        Prompts().check(made.config, made.dataset, made.split)
