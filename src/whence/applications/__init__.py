"""Short functions for people who do not want to choose: they pick, and say what they picked."""
