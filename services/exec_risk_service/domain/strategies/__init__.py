"""Planners: what an execution does next, from what it sees; pure and without a book."""
