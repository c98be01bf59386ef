"""What a caller gives, brought to one form: data of many kinds, and names of weights."""
