"""Recommenders in shards: partitions, ways to combine the shards' scores, and the systems made of both."""
