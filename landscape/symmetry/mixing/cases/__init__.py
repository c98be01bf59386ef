"""Constructions that need a look of their own: rotary embeddings, masks, and weights of which nothing reads a part."""
