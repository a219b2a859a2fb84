"""Judges that were trained elsewhere: any classifier of torchvision, and CLIP asked by prompts."""

from dataclasses import replace

import pytest
import torch

from msgm.config import JudgeSettings, load_config
from msgm.data import DATASETS
from msgm.errors import UserError
from msgm.evaluation import train_judge
from msgm.evaluation.judge import assess, check_judge
from msgm.evaluation.judges.torchvision import groups_of
from msgm.evaluation.measuring import check_metrics
from msgm.evaluation.metrics.unlearning_ratio import real_numbers
from msgm.evaluation.rates import rate
from msgm.requests import ForgetRequest
from tests.evaluation.benches import REQUEST, digits, digits_bench, tiny_classifier_state, tiny_clip_state

WORDS = ["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def saved(state, folder):
    torch.save(state, folder / "tiny.pt")
    return str(folder / "tiny.pt")


def torchvision_judge(folder, **options):
    mapping = {str(k): [word] for k, word in enumerate(WORDS)}
    given = {"network": "shufflenet_v2_x0_5", "classes": WORDS, "size": 32, "mapping": mapping}
    return JudgeSettings("torchvision", given | {"weights": saved(tiny_classifier_state(), folder)} | options)


def clip_judge(folder, **options):
    return JudgeSettings("clip", {"weights": saved(tiny_clip_state(), folder)} | options)


@pytest.mark.parametrize("make", [torchvision_judge, clip_judge])
def test_a_judge_made_elsewhere_is_measured_on_held_out_items(make, tmp_path):
    dataset, split = digits()
    judge = train_judge(dataset, split, REQUEST, make(tmp_path), seed=0)
    predicted = judge.votes(dataset.take(split.test.all)).argmax(1)
    right = int((predicted.numpy() == dataset.labels[split.test.all]).sum())
    assert judge.accuracy == rate(right, len(split.test.all))
    found = judge.forgotten_share(judge.votes(dataset.take(split.test.forget)))
    assert judge.recall == rate(int(found.sum()), len(split.test.forget))
    summary = judge.summary()
    assert summary["forgotten"] == ["3", "7"]
    assert "tiny.pt (sha256 " in summary["kind"]
    assert str(tmp_path) not in summary["kind"]
    assert real_numbers(replace(digits_bench(), judge=judge))["unlearning_ratio"]["n"] == len(split.test.retain)


@pytest.mark.parametrize("make", [torchvision_judge, clip_judge])
def test_its_measurement_is_kept_until_anything_about_it_changes(make, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("msgm.evaluation.judge.assess", lambda judge, task: (calls.append(1), assess(judge, task)))
    folder = tmp_path / "judge"
    first = train_judge(*digits(), REQUEST, make(tmp_path), 0, folder)
    again = train_judge(*digits(), REQUEST, make(tmp_path), 0, folder)
    assert (len(calls), again.summary()) == (1, first.summary())
    other = {"size": 33} if make is torchvision_judge else {"template": "the digit {class}"}
    train_judge(*digits(), REQUEST, make(tmp_path, **other), 0, folder)
    assert len(calls) == 2


def test_classes_that_stand_for_one_are_added_up(tmp_path):
    dataset, split = digits()
    plain = train_judge(dataset, split, REQUEST, torchvision_judge(tmp_path), 0)
    request = ForgetRequest(indices=split.train.all[:100].tolist())
    other = DATASETS.build({"name": "digits"}).split(dataset, request)
    mapping = {"forget": ["three", "seven"], "retain": ["nought", "one"]}
    grouped = train_judge(dataset, other, request, torchvision_judge(tmp_path, mapping=mapping), 0)
    items = dataset.items[:20]
    p, q = (judge.outputs(items)[1].softmax(1) for judge in (plain, grouped))
    retained, forgotten = p[:, [0, 1]].sum(1), p[:, [3, 7]].sum(1)
    assert torch.allclose(q[:, 1], forgotten / (retained + forgotten), atol=1e-5)


def test_clip_answers_with_the_nearest_prompt(tmp_path):
    dataset, split = digits()
    prompts = {"3": ["a three", "the number 3"], "5": "a five"}
    judge = train_judge(dataset, split, REQUEST, clip_judge(tmp_path, prompts=prompts), 0)
    asked = [
        ["a photo of a 0"],
        ["a photo of a 1"],
        ["a photo of a 2"],
        ["a three", "the number 3"],
        ["a photo of a 4"],
    ]
    assert judge.prompts[:6] == [*asked, ["a five"]]
    features, logits = judge.outputs(dataset.items[:50])
    texts = torch.stack([judge.clip.embed_class(group) for group in judge.prompts])
    cosines = (features / features.norm(dim=1, keepdim=True)) @ texts.T
    assert torch.equal(judge.votes(dataset.items[:50]).argmax(1), cosines.argmax(1))
    assert torch.allclose(logits, cosines * judge.clip.network.logit_scale.exp(), atol=1e-4)
    one, other = (judge.clip.embed_class([text]) for text in prompts["3"])
    assert torch.allclose(texts[3], (one + other) / (one + other).norm(), atol=1e-6)


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"cat": ["tabby"]}, "the classifier has no class 'dog'"),
        ({"cat": ["tabby"], "dog": ["tabby"]}, "'tabby' stands for two"),
        ({"cat": [], "dog": ["beagle"]}, "no class of the classifier stands for 'cat'"),
        ({"bat": ["tabby"]}, "the data has no class 'bat'"),
        ({"cat": ["tabi"], "dog": ["beagle"]}, "Did you mean 'tabby'?"),
    ],
)
def test_a_mapping_must_cover_the_datas_classes_once(mapping, says):
    with pytest.raises(UserError, match=r"evaluation.judge.options.mapping") as error:
        groups_of(["cat", "dog"], ["tabby", "beagle", "car"], mapping)
    assert says in str(error.value)


def test_a_class_stands_for_that_of_its_own_name():
    assert groups_of(["dog", "cat"], ["cat", "beagle", "pug"], {"dog": ["pug", "beagle"]}) == [[2, 1], [0]]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["kind=clipp"], ["unknown judge 'clipp'", "clip, copies, measured, own, torch", "'clip'?"]),
        (["options.width=3"], ["evaluation.judge.options"]),
        (["kind=clip", "options.weights=none.pt"], ["there is no file none.pt"]),
        (["kind=clip", "options.template=a_digit"], ["options.template needs {class}"]),
        (["kind=clip", "options.prompts.11=eleven"], ["the judge has no class '11'"]),
        (["kind=clip", "options.prompts.3=[]"], ["expected a text or a list of texts"]),
        (["kind=torchvision", "options.weights=none.pt", "options.classes=[a]"], ["there is no file none.pt"]),
    ],
)
def test_a_bad_judge_is_refused_before_anything_is_measured(settings, says):
    config = load_config(None, ["request.labels=[3,7]", *[f"evaluation.judge.{text}" for text in settings]])
    with pytest.raises(UserError) as error:
        check_metrics(config, *digits())
    assert all(part in str(error.value) for part in says), str(error.value)
    assert "\n" not in str(error.value)


def test_clip_needs_prompts_where_the_classes_have_no_names(tmp_path):
    dataset, _ = digits()
    request = ForgetRequest(indices=list(range(50)))
    split = DATASETS.build({"name": "digits"}).split(dataset, request)
    with pytest.raises(UserError, match=r"say what shows retain and what shows forget"):
        check_judge(dataset, split, request, clip_judge(tmp_path))
    check_judge(dataset, split, request, clip_judge(tmp_path, prompts={"retain": "a face", "forget": "a smile"}))


@pytest.mark.parametrize("kind", ["clip", "torchvision"])
def test_what_sees_images_judges_no_vectors(kind):
    settings = DATASETS.build({"name": "gaussians", "count": 300})
    dataset, request = settings.load(), ForgetRequest(labels=[2])
    with pytest.raises(UserError, match=r"reads images, and gaussians holds vectors"):
        check_judge(dataset, settings.split(dataset, request), request, JudgeSettings(kind))
