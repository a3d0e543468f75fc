"""What runs inside the jail: standard library only, started without the project or any site packages on its path."""
