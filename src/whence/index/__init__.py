"""Features of training examples on disk: built once, asked in any later process."""
