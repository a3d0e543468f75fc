"""Sentences: the flows, the pipeline's configuration, recipes and the command line."""
