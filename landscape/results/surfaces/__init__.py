"""What a surface is when it is done: values, barriers, minima, and the evidence that they are right."""
