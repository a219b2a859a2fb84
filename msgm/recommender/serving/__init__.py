"""``msgm recommender serve``: a served folder over HTTP, by several processes that read and one that writes."""
