"""From training examples and queries to scores."""
