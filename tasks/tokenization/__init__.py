"""Text becomes sequences of tokens."""
