import numpy as np
import pytest

from msgm.recommender.models.touched_rows import TouchedRows

NUMBERS = np.array([7, 2, 7, 3, 2, 7])


def drawn(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("size", [8, 40])
def test_sums_are_those_of_a_loop_over_places(size):
    touched, vectors, which, weights = TouchedRows(NUMBERS, size), drawn(5, 4), np.array([4, 0, 1, 1, 3, 0]), drawn(6)
    expected = np.zeros((size, 4))
    for number, vector, weight in zip(NUMBERS, which, weights, strict=True):
        expected[number] += weight * vectors[vector]
    found = np.zeros((size, 4))
    found[touched.rows] = touched.sums(vectors, which, weights)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [8, 40])
def test_a_step_of_adagrad_moves_the_named_rows_and_no_other(size):
    touched, table, squares = TouchedRows(NUMBERS, size), drawn(size, 4), 0.5 + drawn(size, 4) ** 2
    slopes = np.zeros((size, 4), dtype=np.float32)
    slopes[[2, 3, 7]] = drawn(3, 4)
    sums = squares + slopes**2
    expected = table + 0.1 * slopes / np.sqrt(sums)
    rest = np.delete(table, [2, 3, 7], axis=0)
    touched.ascend(table, squares, slopes[touched.rows], 0.1)
    assert table == pytest.approx(expected, abs=1e-6)
    assert squares == pytest.approx(sums, abs=1e-6)
    assert (np.delete(table, [2, 3, 7], axis=0) == rest).all()


@pytest.mark.parametrize("size", [8, 40])
def test_rows_shrink_as_often_as_they_are_named(size):
    touched, table = TouchedRows(NUMBERS, size), np.ones((size, 4), dtype=np.float32)
    slopes = np.zeros_like(touched.of(table))
    touched.shrink(slopes, touched.of(table), 0.5)
    found = np.zeros(size)
    found[touched.rows] = slopes[:, 0]
    assert (found[[2, 3, 7]] == [-1.0, -0.5, -1.5]).all()
    assert found.sum() == -3.0


def test_rows_are_picked_only_where_few_are_named():
    few, many = TouchedRows(NUMBERS, 40), TouchedRows(NUMBERS, 8)
    table = drawn(40, 4)
    assert (few.rows == [2, 3, 7]).all()
    assert (few.places == [2, 0, 2, 1, 0, 2]).all()
    assert (few.counts == [2, 1, 3]).all()
    assert (few.of(table) == table[[2, 3, 7]]).all()
    assert many.of(table) is table
