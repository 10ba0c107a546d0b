"""Verifiable tasks: the families of the laptop world, their solvers and step checkers, and the corpus made of them."""
