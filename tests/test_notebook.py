"""The toy notebook runs from start to end, and its numbers say what its text says."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "toy_gaussians.ipynb"
SECONDS = 600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


def printed(notebook):
    """The JSON that the last cell prints."""
    return json.loads("".join(output["text"] for output in notebook.cells[-1].outputs if output.name == "stdout"))


@pytest.fixture(scope="module")
def results():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=folder).execute()
    return printed(notebook)


def test_unlearning_ratios_fall_from_standard_to_unseen_to_obtuse(results):
    ur = results["ur"]
    assert ur["obtuse"] < ur["unseen"] < ur["standard"]


def test_redirect_and_unseen_reach_the_floor_that_overlap_leaves(results):
    assert results["floor"] == pytest.approx(0.048, abs=0.005)
    for name in ("unseen", "redirect"):
        assert results["ur"][name] == pytest.approx(results["floor"], abs=0.015)


def test_forget_likelihoods_fall_in_the_same_order(results):
    forget = {name: nll["forget"] for name, nll in results["nll_paper_unit"].items()}
    assert forget["standard"] < forget["unseen"] < forget["obtuse"]


@pytest.mark.parametrize(("name", "retain", "forget"), [("standard", 10.62, 10.81), ("unseen", 10.53, 11.75)])
def test_closed_forms_have_the_known_likelihoods(results, name, retain, forget):
    found = results["nll_paper_unit_closed_form"][name]
    assert found == {"retain": pytest.approx(retain, abs=0.15), "forget": pytest.approx(forget, abs=0.15)}


@pytest.mark.parametrize("name", ["standard", "unseen", "redirect", "orthogonal"])
def test_networks_reach_the_likelihoods_of_their_closed_forms(results, name):
    found, best = results["nll_paper_unit"][name], results["nll_paper_unit_closed_form"][name]
    assert found == {part: pytest.approx(value, abs=0.25) for part, value in best.items()}


def test_fields_point_as_the_objectives_say(results):
    along = results["along_forget_score"]
    assert along["standard"] > 0 > along["unseen"] > along["obtuse"]
    assert abs(along["orthogonal"]) < abs(along["obtuse"])


def test_eq_7_as_printed_trains_on_the_forget_set(results):
    nll = results["nll_paper_unit_closed_form"]
    assert nll["Eq. 7 as printed"]["forget"] < nll["standard"]["forget"]
    assert results["ur_closed_form"]["Eq. 7 as printed"] > results["ur_closed_form"]["standard"]


def test_the_saved_notebook_is_small_executed_and_names_no_machine():
    text = NOTEBOOK.read_text()
    notebook = nbformat.reads(text, as_version=4)
    assert len(text) < 1_500_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert printed(notebook)["ur"]
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))
    assert not any(path in text for path in ("/home/", "/root/", "/tmp/", "/work/", "site-packages"))
