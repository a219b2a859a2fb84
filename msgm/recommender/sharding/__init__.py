"""Recommenders in shards: partitions, ways to combine the shards' scores, and the systems made of both."""

import msgm.recommender.models  # noqa: F401 - the models come first, as their package imports the systems made here
