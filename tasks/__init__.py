"""Verbs: one module or package per stage, and the few things that stages share."""
