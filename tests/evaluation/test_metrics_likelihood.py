"""What the metrics of likelihood write down: values by item, errors, the protocol."""

import json
from dataclasses import replace

import numpy as np
import pytest

from msgm.diffusion.likelihood import negative_log_likelihood
from msgm.diffusion.variational import variational_bound
from msgm.errors import UserError
from msgm.evaluation import Subject, measure
from msgm.evaluation.arrays import read_arrays
from msgm.evaluation.metrics import build_metrics
from msgm.training.run import new_model
from tests.evaluation.benches import digits_bench

FEW = ["evaluation.nll_items=4", "evaluation.likelihood.steps=2"]


def subject(bench, folder=None):
    return Subject("given", new_model(bench.config, bench.dataset), bench, folder)


def test_the_values_of_every_item_and_repeat_are_kept(tmp_path):
    bench = digits_bench("evaluation.metrics=[nll]", "evaluation.likelihood.repeats=3", *FEW)
    given = subject(bench, tmp_path)
    found = measure(given)["nll"]
    kept = read_arrays(tmp_path / "nll.npz")
    for part, indices in (("retain", bench.split.test.retain[:4]), ("forget", bench.split.test.forget[:4])):
        assert kept[f"{part}_indices"].tolist() == indices.tolist()
        assert kept[part].shape == (4, 3)
        items = bench.dataset.take(indices)
        values = negative_log_likelihood(given.model, items, 17, bench.config.evaluation.likelihood, bench.config.seed)
        assert kept[part].mean(1) == pytest.approx(values.numpy(), rel=1e-12)
        assert found[part]["mean"] == pytest.approx(float(values.mean()))
        assert found[part]["standard_error"] == pytest.approx(float(values.std()) / 2)
        assert found[part]["draw_error"] == pytest.approx(np.sqrt((kept[part].var(1, ddof=1) / 3).sum()) / 4)
        assert (found[part]["n"], found[part]["evaluations"]) == (4, 8)


def test_the_row_holds_the_whole_protocol():
    bench = digits_bench("evaluation.metrics=[nll]", *FEW)
    found = measure(subject(bench))["nll"]
    json.dumps(found, allow_nan=False)
    assert found["settings"] == {
        "solver": "rk4",
        "steps": 2,
        "tolerance": 1e-5,
        "probes": 1,
        "repeats": 1,
        "exact_dims": 16,
        "batch_size": 500,
        "error_items": 16,
    }
    assert (found["weights"], found["t_min"]) == ("as given", 1e-5)
    assert "rk4" in found["protocol"]
    assert found["retain"]["draw_error"] is None


def test_the_variational_bound_is_of_the_same_items():
    bench = digits_bench("evaluation.metrics=[vlb]", "process.name=ddpm", "evaluation.options.vlb.terms=3", *FEW)
    given = subject(bench)
    found = measure(given)["vlb"]
    items = bench.dataset.take(bench.split.test.forget[:4])
    values = variational_bound(given.model, items, 17, bench.config.seed, 3)
    assert found["forget"]["mean"] == pytest.approx(float(values.mean()))
    assert found["forget"]["standard_error"] == pytest.approx(float(values.std()) / 2)
    assert (found["unit"], found["terms"], found["retain"]["n"]) == ("bits/dim", 3, 4)


@pytest.mark.parametrize(
    ("overrides", "options", "says"),
    [
        ([], {}, "only the process ddpm"),
        (["process.name=ddpm"], {"terms": 1000}, "evaluation.options.vlb.terms must lie in 1 .. 999, got 1000"),
    ],
)
def test_a_bound_that_there_is_not_is_refused(overrides, options, says):
    bench = digits_bench(*overrides)
    with pytest.raises(UserError) as error:
        build_metrics(["vlb"], {"vlb": options})[0].check(bench.config, bench.dataset, bench.split)
    assert says in str(error.value)


def test_vectors_have_no_bound():
    bench = digits_bench("process.name=ddpm")
    with pytest.raises(UserError, match=r"holds vectors; use nll"):
        build_metrics(["vlb"], {})[0].check(bench.config, replace(bench.dataset, levels=None), bench.split)
