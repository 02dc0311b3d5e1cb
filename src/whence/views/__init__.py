"""From results to what pages show."""
