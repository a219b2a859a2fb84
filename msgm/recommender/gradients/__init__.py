"""Tools of influence and gradient methods: objectives as functions of tables, blocks of rows, solvers, descent.

Imported by a method when it starts to forget, because it imports torch.
"""
