import numpy as np
import pytest
import torch

from msgm.errors import UserError
from msgm.recommender.metrics.attribute_attackers import attack, features
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.models.adversarial_mult_vae import AdversarialMultVAE, reverse
from msgm.recommender.requests import Deletion
from tests.recommender.attributes.planted import cells, labelled

SMALL = {"hidden": 12, "latent": 6, "epochs": 2, "batch_size": 32, "head_hidden": 8}


@pytest.mark.parametrize("strength", [0.0, 1.0, 40.0])
def test_gradient_reversal_is_the_identity_whose_gradient_is_multiplied_by_minus_lambda(strength):
    rows = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = reverse(rows, strength)
    assert torch.equal(seen, rows)
    seen.pow(2).sum().backward()
    assert torch.allclose(rows.grad, -strength * 2 * rows.detach(), atol=1e-12)


def losses(reversal, matrix, texts):
    model = AdversarialMultVAE(**SMALL, reversal=reversal).hiding({"gender": texts}).fit(matrix)
    tables = {name: table.clone().requires_grad_() for name, table in model.tables.items()}
    return model, tables


def test_the_adversary_s_gradient_reaches_the_encoder_reversed_and_its_heads_as_it_is():
    matrix, texts = cells()
    model, tables = losses(7.0, matrix, texts)
    rows = model.rows(np.arange(80))
    found = {}
    for strength in (7.0, -1.0):
        mean, _ = model.encode(tables, rows)
        draws = torch.Generator().manual_seed(0)
        guess = model._guess_losses(tables, reverse(mean, strength), model.labels[0], np.arange(80), draws).mean()
        names = ["encoder.weight", "head.gender.out.weight"]
        found[strength] = torch.autograd.grad(guess, [tables[name] for name in names])
    assert torch.allclose(found[7.0][0], -7.0 * found[-1.0][0], atol=1e-7)
    assert found[-1.0][0].abs().max() > 1e-5
    assert torch.equal(found[7.0][1], found[-1.0][1])


def test_classes_weigh_alike_and_users_without_a_value_not_at_all():
    matrix, texts = cells()
    texts = texts.copy()
    texts[:20] = ""
    model, tables = losses(1.0, matrix, texts)
    flat = {name: torch.zeros_like(table) for name, table in tables.items()}
    latent = torch.zeros(80, 6)
    found = model._guess_losses(flat, latent, model.labels[0], np.arange(80), torch.Generator().manual_seed(0)).numpy()
    assert (found[:20] == 0).all()
    sums = [found[texts == value].sum() for value in "FM"]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert sum(sums) == pytest.approx(60 * np.log(2), rel=1e-5)


def test_a_strong_reversal_hides_the_attribute():
    matrix, texts = cells(users=240, lean=0.25)
    settings = SMALL | {"epochs": 60, "learning_rate": 5e-3, "dropout": 0.2}
    labels, users = labelled(texts), np.arange(240)
    plain = MODELS.build({"name": "adversarial-mult-vae", **settings, "reversal": 0}).hiding({"gender": texts})
    hiding = MODELS.build({"name": "adversarial-mult-vae", **settings, "reversal": 50}).hiding({"gender": texts})
    before, after = (
        attack(features(model.fit(matrix), users, "embeddings"), labels, "logistic").accuracy
        for model in (plain, hiding)
    )
    assert before > 0.85
    assert after < before - 0.1


def test_the_seed_alone_decides_and_the_model_is_saved_with_what_a_refit_needs(tmp_path):
    matrix, texts = cells()
    attributes = {"gender": texts, "age": np.roll(texts, 7)}
    one, same = (AdversarialMultVAE(**SMALL).hiding(attributes).fit(matrix, seed=3) for _ in range(2))
    users = np.arange(10, 80)
    assert (one.score(users) == same.score(users)).all()
    one.save(tmp_path)
    read = load_recommender(tmp_path)
    assert (read.score(users) == one.score(users)).all()
    deletion = Deletion(users=np.arange(10))
    one.forget(deletion)
    read.forget(deletion)
    assert (read.score(users) == one.score(users)).all()
    assert (one.labels[0].codes[:10] == -1).all()


def test_a_fit_without_attributes_or_with_those_of_other_users_is_refused():
    matrix, texts = cells()
    with pytest.raises(UserError, match="adversarial-mult-vae needs attributes to hide"):
        AdversarialMultVAE(**SMALL).fit(matrix)
    with pytest.raises(UserError, match="attribute 'gender' has 9 users; the data 80"):
        AdversarialMultVAE(**SMALL).hiding({"gender": texts[:9]}).fit(matrix)
    with pytest.raises(UserError, match="at least two values"):
        AdversarialMultVAE(**SMALL).hiding({"gender": np.full(80, "F")})
    with pytest.raises(UserError, match="model.reversal must be at least 0, got -1"):
        MODELS.build({"name": "adversarial-mult-vae", "reversal": -1})


def test_no_gradient_reaches_the_encoder_while_the_heads_guess_blindly():
    matrix, texts = cells()
    model, tables = losses(5.0, matrix, texts)
    latent = model.encode(tables, model.rows(np.arange(80)))[0].detach()
    gradients = []
    for shift in (0.0, 30.0):
        # Heads that are sure of the first class, whoever it is, do worse than blindly.
        heads = {name: table.detach().clone() for name, table in tables.items()}
        side = torch.tensor([1.0, -1.0])
        heads["head.gender.out.bias"] += shift * side
        if not shift:
            signs = torch.from_numpy(np.where(texts == "F", 3.0, -3.0)).float()[:, None]
            heads["head.gender.hidden.weight"][:] = torch.eye(6, 8)
            heads["head.gender.out.weight"][:] = side
            latent = signs.expand(80, 6)
        codes = latent.clone().requires_grad_()
        draws = torch.Generator().manual_seed(0)
        found = model._fooling_losses(heads, codes, model.labels[0], np.arange(80), draws).mean()
        gradients.append(torch.autograd.grad(found, codes)[0].abs().max().item())
    assert gradients[0] > 0
    assert gradients[1] == 0
