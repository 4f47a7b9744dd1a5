"""Answering from an exported folder with ONNX Runtime alone: no torch anywhere below.

from fewclip.runtime import OnnxClassifier

OnnxClassifier("pets-onnx").predict(["a.jpg"])
"""

from fewclip.runtime.onnx_classifier import OnnxClassifier
from fewclip.runtime.sessions import open_session
from fewclip.system.cores import usable_cores

__all__ = ["OnnxClassifier", "open_session", "usable_cores"]
