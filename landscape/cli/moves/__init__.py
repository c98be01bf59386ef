"""What `landscape reparam` does: choose families of symmetries, move along them, certify, and climb."""
