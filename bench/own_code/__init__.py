"""What each setting of `own-code` is worth: see `bench.own_code.__main__`."""
