"""What git knows of a working tree, asked so that nothing of the repository is run, followed or written.

A repository configures programs (filters, hooks, monitors, helpers, transports), and most commands of git run
some of them. So git is asked in a git directory of our own, made for the question: the index is a copy in it, commits
are found through it, and its configuration holds nothing but the format of the repository. The person's own
configuration is left out, too, and so is the environment's.

What counts as dirty: the index differs from the commit, or a tracked file from the index in its contents. Times and
permissions do not count, nor do line ends and encodings that git itself converted at the checkout. What a filter would
have to undo does (Git LFS and its like): where the times of such a file are not those that git noted, the file counts
as changed. Submodules do not count: they are checkouts of their own.
"""

from tasks.checkout.asking import PREFIX, Refused, is_git_directory
from tasks.checkout.history import Commit, EarlierFile, commits, contents_of, files_of, read_additions
from tasks.checkout.state import Checkout, address, read, top_of

__all__ = [
    "PREFIX",
    "Checkout",
    "Commit",
    "EarlierFile",
    "Refused",
    "address",
    "commits",
    "contents_of",
    "files_of",
    "is_git_directory",
    "read",
    "read_additions",
    "top_of",
]
