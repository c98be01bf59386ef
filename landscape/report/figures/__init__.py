"""Drawing of results on matplotlib axes and as figures with title and caption."""
