"""Models, losses and data as one regularized empirical risk; independent of solvers and scores."""
