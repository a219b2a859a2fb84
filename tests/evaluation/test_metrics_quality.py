"""FID, KID, Inception score, precision and recall, CLIP distance: each agrees with a computation of another kind."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from msgm.errors import UserError
from msgm.evaluation.measuring import check_metrics, measure, protocol
from msgm.evaluation.metrics import build_metrics
from msgm.evaluation.metrics.clip_distance import pair_distances, set_distance
from msgm.evaluation.metrics.frechet import frechet_distance
from msgm.evaluation.metrics.inception_score import inception_score
from msgm.evaluation.metrics.kernel import kernel_distance, squared_mmd
from msgm.evaluation.metrics.prdc import precision_and_recall
from msgm.evaluation.reference import Moments
from msgm.evaluation.report import tables
from msgm.seeding import generator
from tests.evaluation.benches import digits_bench, subject_of

ALL = ["fid", "kid", "inception-score", "precision-recall"]

EMPTY = {"seeds": [], "retrains": [], "failed": {}, "requests": {"request": {}}}


def features(n, dims, seed, shift=0.0):
    """Correlated features away from the origin."""
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, dims, generator=g, dtype=torch.float64) @ torch.randn(dims, dims, generator=g).double()
    return mixed + 3 + shift


def fid_by_sqrtm(x, y):
    (mx, cx), (my, cy) = ((z.mean(0), np.cov(z, rowvar=False)) for z in (x.numpy(), y.numpy()))
    return ((mx - my) ** 2).sum() + np.trace(cx + cy - 2 * scipy.linalg.sqrtm(cx @ cy).real)


def test_fid_agrees_with_the_matrix_root():
    x, y = features(400, 24, 0), features(300, 24, 1, shift=0.5)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(fid_by_sqrtm(x, y), rel=1e-9)


def test_fid_agrees_with_the_singular_values_of_the_data_when_there_are_more_features_than_items():
    x, y = features(20, 64, 0), features(30, 64, 1, shift=0.5)
    (a, b) = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    expected -= 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(float(expected), rel=1e-9)


def test_fid_agrees_with_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1).double()

    x, y = features(300, 12, 0), features(200, 12, 1, shift=0.5)
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=False).set_dtype(torch.float64)
    theirs.update(x.view(-1, 3, 2, 2), real=True)
    theirs.update(y.view(-1, 3, 2, 2), real=False)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_fid_of_a_set_with_itself_is_zero():
    x = features(30, 50, 0)
    assert frechet_distance(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-7)


def test_moments_of_parts_are_those_of_the_whole_far_from_the_origin():
    x = features(500, 8, 0) + 1e4
    merged = Moments.of(x[:1]).merged(Moments.of(x[1:120])).merged(Moments.of(x[120:]))
    assert merged.n == 500
    assert torch.allclose(merged.mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(merged.covariance, torch.from_numpy(np.cov(x.numpy(), rowvar=False)), rtol=1e-10)


def mmd_by_loops(x, y):
    m, dims = x.shape

    def k(a, b):
        return (float(np.dot(a, b)) / dims + 1) ** 3

    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / m**2


def test_kid_agrees_with_explicit_loops():
    x, y = features(15, 6, 0), features(15, 6, 1, shift=0.3)
    assert float(squared_mmd(x, y)) == pytest.approx(mmd_by_loops(x.numpy(), y.numpy()), rel=1e-9)


def test_kid_agrees_with_torchmetrics_on_a_subset():
    from torchmetrics.image.kid import poly_mmd

    x, y = features(40, 6, 0), features(40, 6, 1, shift=0.3)
    assert float(squared_mmd(x, y)) == pytest.approx(float(poly_mmd(x, y)), rel=1e-6)


def test_kid_is_the_mean_over_subsets_by_its_seed():
    x, y = features(30, 6, 0), features(25, 6, 1)
    draws, values = generator(0, "kid"), []
    for _ in range(4):
        i, j = (torch.randperm(len(z), generator=draws)[:10] for z in (x, y))
        values.append(mmd_by_loops(x[i].numpy(), y[j].numpy()))
    mean, std = kernel_distance(x, y, 4, 10, generator(0, "kid"))
    assert mean == pytest.approx(np.mean(values), rel=1e-9)
    assert std == pytest.approx(np.std(values), rel=1e-9)


def test_the_inception_score_agrees_with_its_definition_and_with_torchmetrics():
    logits = 3 * features(100, 7, 0)
    p = logits.softmax(1)
    parts = p.numpy().reshape(5, 20, 7)
    scores = [np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()) for q in parts]
    mean, std = inception_score(p, 5)
    assert mean == pytest.approx(np.mean(scores), rel=1e-9)
    assert std == pytest.approx(np.std(scores), rel=1e-9)

    from torchmetrics.image.inception import InceptionScore

    class Logits(nn.Module):
        def forward(self, images):
            return images.flatten(1).double()

    theirs = InceptionScore(feature=Logits(), splits=1).set_dtype(torch.float64)
    theirs.update(logits.view(-1, 7, 1, 1))
    assert inception_score(p, 1)[0] == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_the_inception_score_lies_between_one_and_the_number_of_classes():
    assert inception_score(torch.eye(4).repeat(5, 1), 1)[0] == pytest.approx(4)
    assert inception_score(torch.full((20, 4), 0.25), 2) == pytest.approx((1, 0))


def manifold_share_by_loops(points, centres, k):
    apart = [sorted(np.linalg.norm(c - d) for i, d in enumerate(centres) if i != j) for j, c in enumerate(centres)]
    return sum(any(np.linalg.norm(p - c) <= apart[j][k - 1] for j, c in enumerate(centres)) for p in points)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_agree_with_explicit_loops(k, monkeypatch):
    monkeypatch.setattr("msgm.evaluation.metrics.prdc.CHUNK", 7)
    x, y = features(40, 3, 0, shift=1), features(40, 3, 1)
    expected = manifold_share_by_loops(x.numpy(), y.numpy(), k), manifold_share_by_loops(y.numpy(), x.numpy(), k)
    assert precision_and_recall(x, y, k) == expected
    assert 0 < expected[0] < 40


def test_clip_distances_are_cosines():
    x, y = features(5, 4, 0), features(5, 4, 1)
    u, v = ((z / z.norm(dim=1, keepdim=True)).numpy() for z in (x, y))
    assert pair_distances(x, y).numpy() == pytest.approx(1 - (u * v).sum(1))
    mean, other = u.mean(0), v.mean(0)
    assert set_distance(x, y) == pytest.approx(1 - mean @ other / np.linalg.norm(mean) / np.linalg.norm(other))
    assert set_distance(x, x) == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def row():
    bench = digits_bench(f"evaluation.metrics=[{','.join(ALL)}]")
    items = bench.dataset.take(bench.split.train.all[:60])
    return measure(subject_of(bench, items), {"name": "given"}), bench, items


def test_fid_through_the_judge_agrees_with_the_matrix_root_of_its_own_features(row):
    found, bench, items = row
    with torch.no_grad():
        x, y = (bench.judge.network[:-1](see(part)) for part in (items, bench.dataset.take(bench.split.test.retain)))
    (a, b) = ((z.double() - z.double().mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    expected = (x.double().mean(0) - y.double().mean(0)).square().sum() + a.square().sum() + b.square().sum()
    expected -= 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert found["fid"]["value"] == pytest.approx(float(expected), rel=1e-6)


def see(items):
    return (items.float() + 0.5) * (2 / 17) - 1


def test_a_row_says_what_stands_beside_a_number(row):
    found, bench, _ = row
    json.dumps(found, allow_nan=False)
    for key in ("fid", "kid", "inception_score", "precision_recall"):
        assert found[key]["n"] == 60
        assert found[key]["left_out"] == {"non_finite": 0}
        assert found[key]["extractor"]["name"] == "judge"
        assert "trained on this data" in found[key]["extractor"]["text"]
        assert found[key]["steps"] == 3
        assert found[key]["sampler"] == bench.config.sampling.describe()
        assert found[key]["weights"] == "as given"
        assert found[key]["control"]["part"] == "validation"
        assert found[key]["control"]["n"] == 60
    real = {"part": "test", "n": len(bench.split.test.retain)}
    assert {k: found["fid"]["reference"][k] for k in real} == real
    assert found["kid"]["subset_size"] == 60
    assert found["precision_recall"]["precision"]["n"] == found["precision_recall"]["compared"] == 60


def test_the_table_and_the_protocol_name_the_extractor(row):
    found, bench, _ = row
    made = tables({"rows": [found | {"start": "none", "steps": 0, "seconds": 0.0}], **EMPTY})
    quality = next(table for table in made if table.title == "Quality")
    assert [column.heading for column in quality.columns] == ["row", "FID", "KID", "IS", "precision / recall %"]
    assert all("(judge, n 60)" in cell for cell in quality.rows[0][1:])
    lines = protocol(bench)
    assert "real validation items to retain score" in lines["FID"]
    assert "against" in lines["KID"]
    assert "through the judge" in lines["IS"]


def scores(bench, items, finite=None):
    return measure(subject_of(bench, items, finite), {"name": "given"})


def test_filtered_leaves_out_what_shows_forgotten_content():
    bench = digits_bench("evaluation.metrics=[fid]", "evaluation.options.fid.filtered=true")
    split, data = bench.split, bench.dataset
    both = torch.cat([data.take(split.train.forget[:40]), data.take(split.train.retain[:40])])
    named = bench.judge.forgotten_share(bench.judge.votes(both)) > 0.5
    found = scores(bench, both)["fid"]
    assert found["left_out"] == {"non_finite": 0, "forgotten": int(named.sum())}
    assert found["n"] == 80 - int(named.sum())
    kept = scores(digits_bench("evaluation.metrics=[fid]"), both[~named])["fid"]
    assert found["value"] == pytest.approx(kept["value"], rel=1e-6)


def test_samples_that_are_no_numbers_do_not_count(row):
    _, bench, items = row
    mask = torch.ones(60, dtype=torch.bool)
    mask[:10] = False
    found = scores(digits_bench("evaluation.metrics=[fid]"), items, mask)["fid"]
    assert (found["n"], found["left_out"]) == (50, {"non_finite": 10})
    assert found["value"] == pytest.approx(scores(bench, items[10:])["fid"]["value"], rel=1e-6)


def test_a_diverged_model_has_no_value_but_a_row(row):
    _, bench, items = row
    found = scores(bench, items, torch.zeros(60, dtype=torch.bool))
    json.dumps(found, allow_nan=False)
    assert found["fid"]["value"] is None
    made = tables({"rows": [found | {"start": "none", "steps": 0, "seconds": 0.0}], **EMPTY})[1]
    assert all(cell.startswith("too few samples") for cell in made.rows[0][1:])


def test_noise_scores_worse_than_real_items(row):
    found, bench, _ = row
    noise = torch.randint(0, 17, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    worse = scores(bench, noise)
    assert worse["fid"]["value"] > 2 * found["fid"]["value"]
    assert worse["kid"]["value"] > found["kid"]["value"]
    assert worse["precision_recall"]["precision"]["value"] < found["precision_recall"]["precision"]["value"]


def test_metrics_through_pixels_read_vectors():
    from msgm.config import load_config
    from msgm.evaluation import Bench, Reality, train_judge
    from msgm.training.run import load_data

    options = [f"evaluation.options.{name}.extractor.name=pixels" for name in ("fid", "kid", "precision-recall")]
    data = [
        "data.name=gaussians",
        "data.count=2000",
        "request.labels=[2]",
        "network.name=mlp",
        "evaluation.samples=100",
    ]
    config = load_config(
        None, [*data, *options, "evaluation.metrics=[fid,kid,precision-recall]", "evaluation.judge.epochs=1"]
    )
    dataset, split = load_data(config)
    check_metrics(config, dataset, split)
    judge = train_judge(dataset, split, config.request, config.evaluation.judge, 0)
    bench = Bench(config, dataset, split, judge, Reality.of(dataset, split))
    x, y = dataset.take(split.train.all[:100]), dataset.take(split.test.retain)
    found = scores(bench, x)
    assert found["fid"]["value"] == pytest.approx(fid_by_sqrtm(x.double(), y.double()), rel=1e-6)
    assert found["fid"]["extractor"]["text"] == "plain vectors"


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ("fid", {"reference_n": 5000}, ["evaluation.options.fid.reference_n is 5000", "209 test items to retain"]),
        ("fid", {"reference_n": 0}, ["reference_n is 0", "1 .. 209"]),
        ("kid", {"subset_size": 100}, ["evaluation.options.kid.subset_size is 100", "60 samples"]),
        ("kid", {"subset_size": 1}, ["subset_size must be at least 2"]),
        ("kid", {"subsets": 0}, ["subsets must be at least 1"]),
        ("inception-score", {"splits": 61}, ["inception-score.splits is 61", "60 samples"]),
        ("inception-score", {"extractor": {"name": "pixels"}}, ["pixels has no class probabilities", "judge"]),
        ("precision-recall", {"neighbours": 60}, ["neighbours is 60", "60 items", "1 .. 59"]),
        ("clip-distance", {"extractor": {"name": "judge"}}, ["must be clip, got judge"]),
        ("fid", {"extractor": {"name": "pixel"}}, ["evaluation.options.fid.extractor.name", "'pixel'", "'pixels'?"]),
        ("fid", {"extractor": {"name": "judge", "weights": "x"}}, ["extractor.weights: weights belongs to"]),
        ("vlb", {}, ["only the process ddpm", "vp"]),
    ],
)
def test_bad_options_are_refused_in_one_sentence(metric, options, says):
    bench = digits_bench()
    with pytest.raises(UserError) as error:
        build_metrics([metric], {metric: options})[0].check(bench.config, bench.dataset, bench.split)
    assert all(part in str(error.value) for part in says), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [0, 1, 2, 5, 6])
def test_no_distance_of_a_set_from_itself_lies_below_zero(seed):
    """Rounding alone leaves some of them below 0; printed, that reads as a better score than the best."""
    x = torch.randn(40, 12, generator=torch.Generator().manual_seed(seed))
    moments = Moments.of(x.double())
    assert 0 <= frechet_distance(moments, moments) < 1e-9
    assert 0 <= set_distance(x, x) < 1e-6
    pairs = pair_distances(x, x)
    assert pairs.min() >= 0
    assert pairs.max() < 1e-6
