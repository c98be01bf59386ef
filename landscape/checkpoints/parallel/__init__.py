"""Folders of torch.distributed.checkpoint, read without a process group and without unpickling their metadata."""
