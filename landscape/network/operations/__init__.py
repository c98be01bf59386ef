"""What a network computes, read from its modules."""
