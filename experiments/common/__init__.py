"""What the studies share: options, resumable work, trained networks, intervals, documents with a verdict, drawing."""
