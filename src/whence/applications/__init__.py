"""Short functions that choose a method by a stated rule and report the choice."""
