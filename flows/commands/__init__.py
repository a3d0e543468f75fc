"""Commands of the command line besides `run`, a module for each topic; `flows/cli.py` lists them."""
