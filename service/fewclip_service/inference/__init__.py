"""From image bytes to predictions: admission, batching, the worker, the models being served."""
