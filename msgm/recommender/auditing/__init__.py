"""The audit of a served recommender: what a folder that has forgotten shows, checked one thing at a time."""
