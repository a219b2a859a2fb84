import math

import pytest
import torch

from msgm.errors import UserError
from msgm.evaluation import Subject
from msgm.evaluation.metrics.base import METRICS, build_metrics
from msgm.training.run import new_model
from tests.evaluation.benches import digits_bench, tiny_clip_state

HEADINGS = ["ACC D_g %", "ACC D_f %", "FID D_g", "CLIP distance D_g", "PSNR D_g", "SSIM D_g", "UR D_f %", "junk D_f %"]
FEW = {"inpainting": {"n": 6, "steps": 3, "resamples": 1}, "reconstruction": {"n": 6, "steps": 3}}


def metric_of(name, **options):
    return build_metrics([name], {name: FEW[name] | options})[0]


def measured(metric, bench):
    return metric.measure(Subject("given", new_model(bench.config, bench.dataset), bench))


def cells(metric, row):
    return {column.heading: column.cell(row, {}) for column in metric.columns}


@pytest.mark.parametrize("name", FEW)
def test_the_columns_are_the_papers_in_its_order_and_are_filled(name):
    bench, metric = digits_bench(), metric_of(name)
    row = measured(metric, bench)
    assert list(cells(metric, row)) == HEADINGS
    assert cells(metric, row)["CLIP distance D_g"] == "NOT TESTED"
    assert [row[name][kind]["n"] for kind in ("retain", "forget")] == [6, 6]
    assert row[name]["fid"]["value"] >= 0
    (text,) = metric.protocol(bench).values()
    assert "CLIP distance not tested" in text
    assert "the first 6 test items to retain and 6 to forget" in text


@pytest.mark.parametrize(("method", "t"), [("encode", 0.02), ("sdedit", 0.3)])
def test_what_was_measured_with_the_time_of_its_method_still_counts(method, t):
    resolved = metric_of("reconstruction", method=method).settings()
    assert resolved["t"] == t
    assert resolved == metric_of("reconstruction", method=method, t=t).settings()
    assert metric_of("reconstruction", method=method, t=0.1).settings() == resolved | {"t": 0.1}


def test_clip_is_tested_where_there_are_weights(tmp_path):
    torch.save(tiny_clip_state(), tmp_path / "clip.pt")
    bench = digits_bench()
    metric = metric_of("inpainting", clip={"name": "clip", "weights": str(tmp_path / "clip.pt")})
    metric.check(bench.config, bench.dataset, bench.split)
    assert 0 <= measured(metric, bench)["inpainting"]["clip_distance"] <= 2
    assert "not tested" not in metric.protocol(bench)["Inpainting"]


def test_what_a_model_barely_changes_has_a_small_fid_and_a_large_psnr():
    bench = digits_bench()
    model = new_model(bench.config, bench.dataset)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()  # eps = 0: encoding scales the items, and decoding scales them back
    near, far = (
        metric.measure(Subject("given", model, bench))[metric.name]
        for metric in (metric_of("reconstruction", steps=20, t=1e-6), metric_of("inpainting"))
    )
    assert near["retain"]["psnr"] > far["retain"]["psnr"] + 10
    assert near["fid"]["value"] < 0.1 * far["fid"]["value"]


def test_a_restoration_that_diverged_has_no_distances():
    bench, metric = digits_bench(), metric_of("inpainting")
    model = new_model(bench.config, bench.dataset)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.fill_(math.inf)
    row = metric.measure(Subject("given", model, bench))
    assert (row["inpainting"]["fid"], row["inpainting"]["clip_distance"]) == (None, None)
    assert cells(metric, row)["FID D_g"] == "not known"


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("inpainting", {"mask": "uper"}, "uper"),
        ("inpainting", {"n": 100000}, "100000"),
        ("inpainting", {"resamples": 0}, "resamples"),
        ("inpainting", {"sampler": "heum"}, "heun"),
        ("inpainting", {"extractor": {"name": "juge"}}, "judge"),
        ("inpainting", {"clip": {"name": "judge"}}, "clip.name must be clip"),
        ("inpainting", {"clip": {"name": "clip", "weights": "nowhere.pt"}}, "nowhere.pt"),
        ("reconstruction", {"t": 2.0}, "t must lie in"),
        ("reconstruction", {"method": "sdedit", "t": 1e-4}, r"t must lie in \(0.001, 1\]"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(name, options, part):
    bench = digits_bench()
    with pytest.raises(UserError, match=part) as error:
        metric_of(name, **options).check(bench.config, bench.dataset, bench.split)
    assert str(error.value).startswith(f"evaluation.options.{name}")
    assert "\n" not in str(error.value)


def test_both_are_known_to_the_command_line():
    assert {"inpainting", "reconstruction"} <= METRICS.entries.keys()
