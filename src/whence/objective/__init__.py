"""Models, losses and data as one regularized empirical risk; knows no solver and no score."""
