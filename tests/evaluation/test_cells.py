"""The judge that reads pictures place by place."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from msgm.config import JudgeSettings
from msgm.errors import UserError
from msgm.evaluation import train_judge
from msgm.evaluation.earlier import _made_judge
from msgm.evaluation.judge import Task, check_judge
from msgm.evaluation.judges.cells import Cells, CellsJudge, cells_of, cut, forgotten_classes, item_classes
from msgm.evaluation.judges.own import OwnJudge
from msgm.evaluation.metrics.unlearning_ratio import sample_numbers
from msgm.evaluation.reality import Reality
from msgm.requests import ForgetRequest
from msgm.splits import make_split
from tests.evaluation.canvases import BLANK, REQUEST, SEVEN, TWO, canvas_bench, canvas_judge, canvases, parts, showing

SMALL = JudgeSettings(epochs=1, width=8)


class ByLevel(torch.nn.Module):
    """Says that a picture is of the class of its first pixel's level."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return 20 * torch.nn.functional.one_hot(((x[:, 0, 0, 0] + 1) / 2 * 16).round().long(), 11).float()


def by_level(forgotten=(3, 7)):
    """A judge of canvases of three 4x4 places, each of the class of its first pixel's level; 10 is blank."""
    network = OwnJudge([str(k) for k in range(11)], [], 17, torch.nn.Sequential(torch.nn.Identity(), ByLevel()))
    bank = torch.tensor(range(11), dtype=torch.uint8).view(11, 1, 1, 1).expand(11, 1, 4, 4)
    return CellsJudge(network.classes, list(forgotten), 17, network, (4, 4), Reality(bank, 17, 0.5, 0.1))


def canvas(*levels):
    return torch.tensor(levels, dtype=torch.uint8).repeat_interleave(4).expand(1, 1, 4, 12).contiguous()


def test_places_are_cut_row_by_row_from_left_to_right():
    items = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    found = cut(items, (2, 3))
    assert found.shape == (2, 4, 3, 2, 3)
    assert torch.equal(found[1, 1], items[1, :, :2, 3:])
    assert torch.equal(found[1, 2], items[1, :, 2:, :3])


@pytest.mark.parametrize(
    ("levels", "read", "votes"),
    [
        ((10, 5, 10), (5,), {5: 1.0}),
        ((4, 10, 2), (4, 2), {4: 0.5, 2: 0.5}),
        ((4, 7, 4), (4, 7, 4), {7: 1.0}),
        ((3, 7, 7), (3, 7, 7), {3: 1 / 3, 7: 2 / 3}),
        ((10, 10, 10), (), {10: 1.0}),
    ],
)
def test_any_place_with_a_forgotten_class_makes_the_picture_forgotten(levels, read, votes):
    judge = by_level()
    assert judge.read(canvas(*levels)) == [read]
    expected = torch.zeros(1, 11)
    for k, share in votes.items():
        expected[0, k] = share
    assert torch.allclose(judge.votes(canvas(*levels)), expected)
    assert judge.forgotten_share(judge.votes(canvas(*levels))).item() == pytest.approx(float(bool(set(read) & {3, 7})))


def test_probabilities_of_a_picture_are_the_means_of_its_places():
    features, shares = by_level().outputs(canvas(4, 10, 2))
    assert features.shape == (1, 3 * 16)
    assert torch.allclose(shares.softmax(1)[0, [2, 4, 10]], torch.full((3,), 1 / 3), atol=1e-4)


def test_a_picture_is_junk_where_no_place_shows_a_class():
    judge = by_level()
    odd = canvas(16, 4, 4)
    odd[..., 0, 0] = 4
    junk = [
        judge.junk(item).item() for item in (canvas(10, 10, 10), canvas(10, 10, 3), odd, odd[..., [0, 1, 2, 3] * 3])
    ]
    assert junk == [True, False, False, True]


def test_it_is_trained_on_the_places_of_items_with_one_class():
    task = Task.of(canvases(), parts(), REQUEST)
    cells = cells_of(task, (8, 8))
    data, train = canvases(), parts().train.whole
    single = train[[len(classes) == 1 for classes in item_classes(data, train)]]
    assert len(cells.split.train.retain) == 2 * len(single)
    assert (cells.targets == BLANK).sum() * 2 == len(cells.targets)
    shown = cells.dataset.take(cells.split.train.retain).flatten(1).any(1)
    assert torch.equal(shown, torch.from_numpy(cells.targets[cells.split.train.retain] != BLANK))
    first = cells.targets[:2] if cells.targets[0] != BLANK else cells.targets[1::-1]
    assert first.tolist() == [item_classes(data, single[:1])[0][0], BLANK]


def test_items_of_earlier_requests_teach_it_too():
    split = make_split(showing({SEVEN}), 0.15, 0.15, 0, gone=showing({TWO}))
    cells = cells_of(Task.of(canvases(), split, REQUEST), (8, 8))
    assert np.unique(cells.targets[cells.split.train.retain]).tolist() == list(range(11))


def test_held_out_pictures_of_one_class_and_of_two_are_read():
    judge = canvas_judge()
    assert isinstance(judge, CellsJudge)
    assert judge.classes == [*map(str, range(10)), "blank"]
    assert judge.forgotten == [SEVEN]
    assert judge.accuracy["n"] == len(parts().test.all)
    assert judge.accuracy["value"] > 0.97
    assert judge.recall["n"] == len(parts().test.forget)
    assert judge.recall["value"] > 0.97
    data, test = canvases(), parts().test.all
    right = [a == b for a, b in zip(judge.read(data.take(test)), item_classes(data, test), strict=True)]
    assert np.mean(right) == judge.accuracy["value"]


def test_black_pictures_and_noise_are_junk_and_real_ones_are_not():
    judge, data = canvas_judge(), canvases()
    draws = torch.Generator().manual_seed(0)
    black = torch.zeros(5, 1, 8, 16, dtype=torch.uint8)
    noise = torch.randint(0, 17, (100, 1, 8, 16), generator=draws).to(torch.uint8)
    assert judge.junk(torch.cat([black, noise])).all()
    assert judge.junk(data.take(parts().test.all)).float().mean() < 0.03


def test_one_in_a_hundred_held_out_places_with_a_class_is_junk():
    cells = cells_of(Task.of(canvases(), parts(), REQUEST), (8, 8))
    held_out = cells.split.validation.retain
    shown = cells.dataset.take(held_out[cells.targets[held_out] != BLANK])
    reality = canvas_judge().reality
    assert reality.junk(reality.distances(shown)).sum() == np.ceil(0.01 * (len(shown) - 1))


def test_what_the_judge_takes_for_junk_is_junk_wherever_it_lies():
    bench = canvas_bench()
    near = replace(bench, reality=replace(bench.reality, junk_above=1e9))
    black, real = torch.zeros(2, 1, 8, 16, dtype=torch.uint8), canvases().take(parts().test.all[:2])
    assert near.junk(torch.cat([black, real])).tolist() == [True, True, False, False]
    far = replace(bench, reality=replace(bench.reality, junk_above=-1.0))
    assert far.junk(real).all()


@pytest.mark.parametrize(("every", "known"), [(1, True), (2, False)])
def test_an_earlier_request_for_a_whole_class_has_a_judge_of_its_own(every, known):
    mask = showing({TWO}) & (np.arange(len(canvases())) % every == 0)
    bench = canvas_bench("evaluation.judge={epochs: 1, width: 8}")
    later = replace(bench, split=make_split(showing({SEVEN}), 0.15, 0.15, 0, gone=mask))
    judge = _made_judge(later, SimpleNamespace(selector="concept"), mask)
    assert (judge is not None) == known
    if judge is not None:
        assert judge.forgotten == [TWO]


def test_the_unlearning_ratio_of_black_pictures_is_all_junk():
    bench = canvas_bench()
    near = replace(bench, reality=replace(bench.reality, junk_above=1e9))
    found = sample_numbers(torch.zeros(5, 1, 8, 16, dtype=torch.uint8), torch.ones(5, dtype=torch.bool), near)
    assert (found["junk_rate"], found["unlearning_ratio"]["value"]) == (1, 0)
    assert found["class_histogram"]["none"] == 5


def test_an_item_without_captions_shows_no_known_class():
    silent = replace(canvases(), captions=np.full((len(canvases()), 2), -1))
    assert item_classes(silent, np.arange(2)) == [(), ()]


def test_it_is_kept_and_read_again(tmp_path, capsys):
    given = canvases(), parts(), REQUEST, SMALL
    first = train_judge(*given, seed=0, folder=tmp_path)
    assert "training" in capsys.readouterr().out
    second = train_judge(*given, seed=0, folder=tmp_path)
    assert "already trained" in capsys.readouterr().out
    items = canvases().take(parts().test.all)
    assert first.digest == second.digest
    assert torch.equal(first.votes(items), second.votes(items))
    assert (first.accuracy, first.recall) == (second.accuracy, second.recall)


def test_a_class_of_which_items_are_retained_is_not_forgotten():
    some = showing({SEVEN}) & (np.arange(len(canvases())) % 2 == 0)
    asked = ForgetRequest(mask=some)
    split = make_split(some, 0.15, 0.15, 0)
    assert forgotten_classes(Task.of(canvases(), split, asked)) == []
    with pytest.raises(UserError, match=r"^evaluation.judge.kind: cells needs a request for whole classes"):
        check_judge(canvases(), split, asked, JudgeSettings())


def test_what_it_cannot_read_is_refused():
    with pytest.raises(UserError, match=r"^evaluation.judge.options.place: items of shape .* places of 5x8.$"):
        check_judge(canvases(), parts(), REQUEST, JudgeSettings(options={"place": [5, 8]}))
    bare = replace(canvases(), named=[])
    with pytest.raises(UserError, match=r"prompts name classes, and canvases has none.$"):
        Cells().check(Task.of(bare, parts(), REQUEST))
