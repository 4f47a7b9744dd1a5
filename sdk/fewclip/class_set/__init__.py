"""The one rule for class names and phrases, and editing a card's class set. No torch, no files.

A label is what an answer says; a phrase is what CLIP reads for it, in the place of the template's
`{}`. Training, `zero_shot` and every edit of a trained or exported model read names here, so what
one refuses, no other accepts.
"""

from fewclip.class_set.editing import add_classes, remove_classes, rename_classes, with_classes
from fewclip.class_set.names import (
    MAX_NAME,
    Phrases,
    clean_label,
    listed,
    phrases_for,
    prompt_key,
    read_labels,
    read_phrases,
)

__all__ = [
    "MAX_NAME",
    "Phrases",
    "add_classes",
    "clean_label",
    "listed",
    "phrases_for",
    "prompt_key",
    "read_labels",
    "read_phrases",
    "remove_classes",
    "rename_classes",
    "with_classes",
]
