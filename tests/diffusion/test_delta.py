"""Deltas of weights: put in and taken out bit for bit, and refused for other weights."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import msgm
from msgm.chain import Chain, Entry
from msgm.diffusion import Delta
from msgm.diffusion.delta import HEADER
from msgm.requests import ForgetRequest
from tests.diffusion.small_pipelines import stable_diffusion


@pytest.fixture(scope="module")
def model():
    return msgm.ScoreModel.from_pretrained(stable_diffusion())


def edited(model, name="attn2.to_k", factor=1 / 3):
    """Return a copy of the model whose weights of some name are multiplied, and are thus rounded."""
    other = replace(model, network=msgm.ScoreModel.from_pretrained(model.to_pipeline()).network)
    with torch.no_grad():
        for key, weights in other.network.named_parameters():
            if name in key:
                weights *= factor
    return other


def same(one, other):
    """Return whether two models have the same bits."""
    a, b = one.network.state_dict(), other.network.state_dict()
    return list(a) == list(b) and all(a[k].equal(b[k]) for k in a)


def test_what_is_put_in_and_taken_out_again_leaves_every_bit_as_it_was(model, tmp_path):
    after = edited(model)
    Delta.between(model, after).save(tmp_path / "change.safetensors")
    delta = Delta.load(tmp_path / "change.safetensors")
    put = delta.added_to(model)
    assert same(put, after)
    assert not same(put, model)
    assert same(delta.taken_from(put), model)


def test_a_difference_of_numbers_would_not_restore_them(model):
    old = next(w for name, w in model.network.named_parameters() if "attn2.to_k" in name).detach()
    new = old / 3
    assert not torch.equal(old, new + (old - new)) or not torch.equal(new, old - (old - new))


def test_only_the_tensors_that_differ_are_kept(model):
    delta = Delta.between(model, edited(model, "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"))
    assert list(delta.bits) == ["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"]


def test_a_changed_text_encoder_is_part_of_it_and_zeros_of_either_sign_are_told_apart(model):
    after = edited(model, "text_encoder", -1.0)
    after.network.get_parameter("unet.conv_out.bias").data[0] = -0.0
    model.network.get_parameter("unet.conv_out.bias").data[0] = 0.0
    delta = Delta.between(model, after)
    assert "unet.conv_out.bias" in delta.bits
    assert any(name.startswith("text_encoder") for name in delta.bits)
    assert torch.signbit(delta.added_to(model).network.get_parameter("unet.conv_out.bias")[0])


def test_half_precision_whole_numbers_and_double_precision_are_restored_as_well():
    from msgm.diffusion.delta import _flip

    class Mixed(torch.nn.Module):
        def __init__(self, sign):
            super().__init__()
            for kind in (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool):
                values = sign * torch.arange(-3, 3)
                self.register_buffer(str(kind).replace(".", "_"), values.to(kind))

    old, new = Mixed(1), Mixed(-1)
    delta = Delta.between(msgm.ScoreModel(old, None, (1,)), msgm.ScoreModel(new, None, (1,)))
    _flip(new, delta.bits)
    assert all(a.equal(b) for a, b in zip(old.buffers(), new.buffers(), strict=True))


def test_weights_that_two_layers_share_are_changed_once():
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False) for _ in range(2)])
    layers[1].weight = layers[0].weight
    old = msgm.ScoreModel(layers, None, (2,))
    new = replace(old, network=copy.deepcopy(layers))
    new.network[0].weight.data *= 3
    assert same(Delta.between(old, new).added_to(old), new)


def test_other_weights_are_refused_and_a_change_is_not_made_twice(model):
    delta = Delta.between(model, edited(model))
    with pytest.raises(msgm.UserError, match="other weights"):
        delta.added_to(edited(model, factor=2.0))
    with pytest.raises(msgm.UserError, match="already"):
        delta.added_to(delta.added_to(model))
    with pytest.raises(msgm.UserError, match="already"):
        delta.taken_from(model)
    small = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
    with pytest.raises(msgm.UserError, match="other tensors"):
        Delta.between(model, small)


def test_the_history_goes_with_the_weights(model, tmp_path):
    entry = Entry.of(ForgetRequest(labels=[3]), np.array([True, False]), "uce")
    before, after = replace(model, chain=Chain()), replace(edited(model), chain=Chain((entry,)))
    delta = Delta.between(before, after)
    assert delta.added_to(before).chain == after.chain
    assert delta.taken_from(delta.added_to(before)).chain == Chain()


def test_damaged_and_newer_files_are_refused(model, tmp_path):
    file = tmp_path / "change.safetensors"
    delta = Delta.between(model, edited(model))
    delta.save(file)
    bits, header = load_file(file), {"format": 1, "before": delta.before, "after": delta.after}
    header |= {"chain_before": None, "chain_after": None}
    save_file(bits, file)
    with pytest.raises(msgm.UserError, match="no delta"):
        Delta.load(file)
    save_file(bits, file, {HEADER: json.dumps(header | {"format": 2})})
    with pytest.raises(msgm.UserError, match="newer"):
        Delta.load(file)
    save_file(dict(list(bits.items())[1:]), file, {HEADER: json.dumps(header)})
    with pytest.raises(msgm.UserError, match="damaged"):
        Delta.load(file).added_to(model)
