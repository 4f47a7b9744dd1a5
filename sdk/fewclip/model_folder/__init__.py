"""What a model's folder holds: typed cards, tensors, and files read within limits. No torch."""
