"""Match a file's tensors to a model: names of wrappers and trainers, the model's own loader, adapters."""
