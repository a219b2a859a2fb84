"""Commands of every domain that need no model: lists, configs, completion and a look at the machine."""
