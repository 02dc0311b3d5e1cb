"""Where the command line finds data and models."""
