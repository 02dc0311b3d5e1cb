"""Other libraries' models as objectives."""
