import json
import sys

import torch

from scripts.bench import cross_attention as benchmark


def test_the_layers_are_those_of_sixteen_blocks():
    layers = benchmark.cross_attention()
    assert len(layers) == 32
    assert {layer.in_features for layer in layers.values()} == {768}
    widths = sorted(layer.out_features for layer in layers.values())
    assert widths == [320] * 10 + [640] * 10 + [1280] * 12


def test_a_prompt_has_one_embedding_and_a_place_for_each_word():
    found = benchmark.encode(["", "kept 3"])
    assert torch.equal(found.embedding[1], benchmark.encode(["kept 3"]).embedding[0])
    assert found.mask.sum(1).tolist() == [0, 2]
    assert found.mask[1].nonzero().flatten().tolist() == [1, 2]


def test_an_edit_in_a_process_of_its_own_says_what_it_took():
    found = benchmark.in_process("uce", 1)
    assert found["method"] == "uce"
    assert found["concepts"] == 1
    assert found["peak_mib"] >= found["before_mib"] > 0


def test_it_prints_a_line_for_each_edit(tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(benchmark, "OUTPUTS", {"mid": [320]})
    monkeypatch.setattr(benchmark, "in_process", benchmark.measured)
    monkeypatch.setattr(sys, "argv", ["cross_attention.py", "--concepts", "2", "--json", str(path)])
    benchmark.main()
    found = json.loads(path.read_text())
    assert [line["method"] for line in found] == ["uce", "rece", "mace"]
    assert all(line["seconds"] > 0 and line["peak_mib"] >= line["before_mib"] for line in found)
    assert len(capsys.readouterr().out.splitlines()) == 4
