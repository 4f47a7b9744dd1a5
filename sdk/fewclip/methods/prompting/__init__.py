"""Methods that learn context vectors or deep prompts, one module each."""
