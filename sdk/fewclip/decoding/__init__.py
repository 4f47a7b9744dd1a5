"""Decoding untrusted images in processes of their own: `decode_pool.DecodePool`. No torch.

Nothing is imported here: a worker is started as `python -m fewclip.decoding.decode_worker` and must
start light.
"""
