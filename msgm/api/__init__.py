"""What ``import msgm`` offers: the verbs of the command line, generators' objects, and reports. No mathematics here."""
