"""fewclip_export: a trained classifier as ONNX, written only when it answers as the original.

Needs torch; what runs the exported folder afterwards is `fewclip.runtime`, which does not.
"""
