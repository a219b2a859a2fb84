import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.closeness import closeness
from msgm.recommender.attributes.user_to_user import UserToUser, user_to_user
from tests.recommender.attributes.planted import labelled, table


def double_loop(rows, codes):
    total, pairs = 0.0, 0
    for i in range(len(rows)):
        for j in range(i):
            if codes[i] != codes[j]:
                total += ((rows[i] - rows[j]) ** 2).sum()
                pairs += 1
    return total / pairs


@pytest.mark.parametrize("classes", [2, 3])
def test_closed_form_is_the_double_loop(classes):
    rows, texts, _ = table(users=40, classes=classes)
    rows = rows.astype(float)
    codes = labelled(texts).codes
    assert user_to_user(rows, codes) == pytest.approx(double_loop(rows, codes), rel=1e-12)


def objective(rows, original, codes, context, erasure):
    form = closeness(original, context.items, erasure.space)
    sizes = np.bincount(codes)
    weights = len(rows) - sizes if erasure.balanced else np.ones(len(sizes))
    weights = (weights / (weights * sizes).sum() * len(rows))[codes]
    change = rows - original
    return user_to_user(rows, codes) + erasure.weight * (weights * ((change @ form) * change).sum(1)).mean()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("space", ["function", "parameter"])
@pytest.mark.parametrize("balanced", [True, False])
def test_erased_is_the_minimum(space, balanced, classes):
    rows, texts, context = table(users=60, classes=classes)
    rows, codes = rows.astype(float), labelled(texts).codes
    erasure = UserToUser(0.7, space, balanced)
    best = erasure.erase(rows, {"gender": texts}, context)
    least = objective(best, rows, codes, context, erasure)
    assert least < objective(rows, rows, codes, context, erasure)
    draws = np.random.default_rng(0)
    for _ in range(20):
        nudge = 1e-3 * draws.normal(size=rows.shape)
        up, down = (objective(best + sign * nudge, rows, codes, context, erasure) for sign in (1, -1))
        assert min(up, down) > least
        assert abs(up - down) < 1e-6 * (up + down - 2 * least + 1)


def relative_gap(rows, codes):
    one, other = (rows[codes == code] for code in (0, 1))
    return np.linalg.norm(one.mean(0) - other.mean(0)) / np.sqrt(one.var(0).sum())


def test_the_gap_falls_by_at_most_a_half_relative_to_the_spread():
    rows, texts, context = table()
    rows, codes = rows.astype(float), labelled(texts).codes
    before = relative_gap(rows, codes)
    for weight in (10, 0.1, 1e-4):
        after = UserToUser(weight, "parameter").erase(rows, {"gender": texts}, context)
        assert 0.5 * before < relative_gap(after, codes) < before
    assert relative_gap(after, codes) == pytest.approx(before / 2, rel=1e-3)


def test_balanced_classes_shrink_alike_and_as_published_they_do_not():
    rows, texts, context = table(share=0.2)

    def shrunk(balanced):
        after = UserToUser(0.1, "parameter", balanced).erase(rows, {"gender": texts}, context)
        return [after[texts == value].std(0).mean() / rows[texts == value].std(0).mean() for value in "FM"]

    assert np.ptp(shrunk(True)) < 1e-4
    one, other = shrunk(False)
    assert other > 2 * one


def test_directions_that_no_score_sees_stay_finite():
    rows, texts, context = table()
    items = np.zeros_like(context.items)
    items[:, 0] = context.items[:, 0]
    after = UserToUser().erase(rows, {"gender": texts}, type(context)(items))
    assert np.isfinite(after).all()


def test_users_without_a_value_stay():
    rows, texts, context = table()
    texts[:30] = ""
    after = UserToUser().erase(rows, {"gender": texts}, context)
    assert (after[:30] == rows[:30]).all()
    assert (after[30:] != rows[30:]).any()


def test_bad_settings_and_several_attributes_are_refused():
    rows, texts, context = table()
    with pytest.raises(UserError, match="erasure.weight must be a positive number, got 0"):
        ERASURES.build({"name": "user-to-user", "weight": 0})
    with pytest.raises(UserError, match="user-to-user takes one attribute, got gender, age; use combined"):
        UserToUser().erase(rows, {"gender": texts, "age": texts}, context)
