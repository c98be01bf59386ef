"""A file's tensors onto a model: names of wrappers and trainers, the model's own loader, adapters."""
