"""Functional suites: problems whose solutions are run against tests."""
