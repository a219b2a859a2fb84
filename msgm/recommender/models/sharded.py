"""Makes the models that are built of other models known: ``sharded`` and ``sequential``."""

import msgm.recommender.sharding.laser
import msgm.recommender.sharding.system  # noqa: F401 - registers
