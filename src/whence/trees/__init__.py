"""Tree ensembles as whence reads them: boosted rounds, forests, and derivatives through both."""
