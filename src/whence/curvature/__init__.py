"""Where models meet linear algebra: curvature as operators, and its inverse by cost."""
