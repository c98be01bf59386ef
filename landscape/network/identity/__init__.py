"""What a network, a loss or a metric is made of: its code and its constants, as text that can be hashed."""
