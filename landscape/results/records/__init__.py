"""What a result records of how it was made, in words."""
