"""Registers the models that are built from other models: ``sharded`` and ``sequential``."""

import msgm.recommender.sharding.laser
import msgm.recommender.sharding.system  # noqa: F401 - registers
