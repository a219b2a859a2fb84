"""Commands of every domain that need no model: lists, configs and a look at the machine."""
