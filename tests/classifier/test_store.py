import json

import pytest
import torch

from msgm.classifier.networks import CLASSIFIERS, build
from msgm.classifier.store import load_classifier, save_classifier
from msgm.errors import UserError

NETWORK = CLASSIFIERS.resolve({"name": "cnn", "width": 2})


def saved(path):
    model = build(CLASSIFIERS.build(NETWORK), (1, 8, 8), 3, seed=5)
    with torch.no_grad():
        model(
            torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        )  # moves batch normalisation's statistics
    save_classifier(model, path, NETWORK, (1, 8, 8), 3)
    return model


def test_a_model_comes_back_bit_for_bit_buffers_included_and_in_eval_mode(tmp_path):
    model = saved(tmp_path)
    again = load_classifier(tmp_path)
    old, new = model.state_dict(), again.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert not again.training


def test_missing_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*network\.json"):
        load_classifier(tmp_path)
    saved(tmp_path)
    facts = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(facts | {"classes": 4}))
    with pytest.raises(UserError, match="weights of another network"):
        load_classifier(tmp_path)
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(UserError, match="network.json: network: expected an object of values by name, got nothing"):
        load_classifier(tmp_path)
    for name in ({}, [], None, 3):
        (tmp_path / "network.json").write_text(json.dumps(facts | {"network": {"name": name}}))
        with pytest.raises(UserError, match="network"):
            load_classifier(tmp_path)
    (tmp_path / "network.json").write_text(json.dumps(facts))
    (tmp_path / "model.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(UserError, match="is damaged"):
        load_classifier(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors"):
        load_classifier(tmp_path)
