"""Results onto matplotlib axes, and into figures with a title and a footer."""
