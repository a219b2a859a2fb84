import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.attributes.obfuscation import Obfuscation, typicality
from tests.recommender.attributes.planted import cells, labelled


def test_typicality_is_the_log_ratio_of_smoothed_shares():
    dense = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=np.float32)
    found = typicality(csr_array(dense), labelled(np.array(["F", "F", "M", "M", "M"])), prior=4.0)
    shares = np.array([[(2 + 4 * 0.4) / 6, (1 + 4 * 0.6) / 6], [(0 + 4 * 0.4) / 7, (2 + 4 * 0.6) / 7]])
    assert np.allclose(found[:, :2], np.log(shares) - np.log(shares[::-1]))
    assert (found[:, 2] == 0).all()


def shares(matrix, texts):
    return np.stack([np.asarray(matrix.toarray()[texts == value].mean(0)) for value in "FM"])


def test_items_become_as_common_in_one_class_as_in_the_other():
    matrix, texts = cells(users=4000)
    before = shares(matrix, texts)
    after = shares(Obfuscation(1.0, prior=1e-3).apply(matrix, {"gender": texts}), texts)
    assert np.abs(before[0] - before[1]).max() > 0.2
    assert np.abs(after[0] - after[1]).max() < 0.04
    assert np.abs(after - before.min(0)).max() < 0.04


def test_only_typical_cells_go_and_nobody_s_profile_gets_empty():
    matrix, texts = cells()
    labels = labelled(texts)
    after = Obfuscation(strength=100.0, prior=1e-3).apply(matrix, {"gender": texts})
    assert np.diff(after.indptr).min() >= 1
    gone = (matrix - after).tocoo()
    assert gone.data.max() == 1
    typical = typicality(matrix, labels, 1e-3)
    rows, columns = (matrix.toarray() > after.toarray()).nonzero()
    assert len(rows) > 0.3 * matrix.nnz
    assert (typical[labels.codes[rows], columns] > 0).all()


def test_values_can_be_weighed_down_in_place_of_cells_going():
    matrix, texts = cells()
    labels = labelled(texts)
    lower = Obfuscation(2.0, way="weigh").apply(matrix, {"gender": texts})
    assert lower.nnz == matrix.nnz
    assert lower.dtype == matrix.dtype
    excess = np.maximum(typicality(matrix, labels, 20.0), 0)[labels.codes]
    assert np.allclose(lower.toarray(), matrix.toarray() * np.exp(-2 * excess))


def test_users_without_a_value_keep_their_profiles_and_the_matrix_given_is_kept():
    matrix, texts = cells()
    texts = texts.copy()
    texts[:10] = ""
    copied = matrix.copy()
    after = Obfuscation(5.0).apply(matrix, {"gender": texts})
    assert (after[:10].toarray() == matrix[:10].toarray()).all()
    assert (matrix.toarray() == copied.toarray()).all()


def test_the_seed_alone_decides():
    matrix, texts = cells()
    one, same, other = (Obfuscation(seed=seed).apply(matrix, {"gender": texts}).toarray() for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


def test_bad_input_is_refused():
    matrix, _ = cells()
    with pytest.raises(UserError, match="obfuscation.strength must be a positive number, got 0"):
        Obfuscation(0)
    with pytest.raises(UserError, match="attribute 'gender' has 5 users; the data 80"):
        Obfuscation().apply(matrix, {"gender": np.array(["F", "M", "F", "M", "F"])})
    with pytest.raises(UserError, match="at least two values"):
        Obfuscation().apply(matrix, {"gender": np.full(80, "F")})
