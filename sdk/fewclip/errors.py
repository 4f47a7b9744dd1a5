"""Every error fewclip raises on purpose. No torch here.

FewclipError
├── InputError (ValueError)          the caller's input is at fault; CLI exit status 2
│   ├── DataError                    a folder, CSV, dict or list of images
│   │   └── ImageError               one image cannot be read
│   │       ├── ImageTooLargeError   ... because it has more pixels than allowed
│   │       └── DecoderBusyError     ... now: there was no time for it, and it may be fine
│   ├── ClassNameError               unknown, duplicate, empty or too long class names
│   ├── OptionError                  an unknown option or a value out of range
│   │   └── CoverageError            ... prediction sets that this model cannot promise
│   ├── BackboneError                a backbone that is unknown, unsupported or unreachable
│   ├── ArtifactError                a saved or exported folder that is broken or tampered with
│   │   └── FormatVersionError       ... or made by a version this one does not know
│   ├── HubError                     a repository of the Hub that is missing, refused or offline
│   ├── CheckpointError              a checkpoint that does not belong to this run
│   ├── DivergedError                a training loss that is not finite: a rate is too high
│   └── GateError                    an export that does not answer as the trained model does
├── MissingExtraError (ImportError)  an optional dependency is not installed; CLI exit status 2
└── StoppedError                     a long job was stopped on request; it says what was kept

A message says what was wrong, what was received, and how to fix it.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Another library's error in one line, to go into a message of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class FewclipError(Exception):
    """Base of all errors raised on purpose."""


class InputError(FewclipError, ValueError):
    """The caller's input is at fault, and the message says how to fix it."""


class DataError(InputError):
    """A data set cannot be used as it is."""


class ImageError(DataError):
    """One image cannot be read."""


class ImageTooLargeError(ImageError):
    """One image has more pixels than allowed; it was not decoded."""


class DecoderBusyError(ImageError):
    """There was no time to decode one image; it may be fine, and can be sent again."""


class ClassNameError(InputError):
    """A class name is unknown, given twice, empty or too long."""


class OptionError(InputError):
    """An option is unknown or its value out of range."""


class CoverageError(OptionError):
    """This model cannot promise prediction sets of that coverage; the message says why."""


class BackboneError(InputError):
    """A backbone is unknown, unsupported or unreachable."""


class ArtifactError(InputError):
    """A saved or exported folder is missing files, broken or changed since it was written."""


class FormatVersionError(ArtifactError):
    """A folder has a format that this version does not know."""


class HubError(InputError):
    """A Hub repository is missing, unreachable, or not ours to read or write."""


class CheckpointError(InputError):
    """A checkpoint belongs to another run, or is broken."""


class DivergedError(InputError):
    """Training ended in a loss that is not finite; nothing was written."""


class GateError(InputError):
    """An exported model does not answer like the trained one; nothing was written."""


class MissingExtraError(FewclipError, ImportError):
    """An optional dependency is missing.

    Args:
        what: what needs it, for people ("adapting a model").
        extra: the extra that installs it ("train").
    """

    def __init__(self, what: str, extra: str) -> None:
        install = f"pip install 'fewclip[{extra}]'"
        if extra == "app":  # Gradio would refuse the Pillow that is safe with untrusted images
            install += " && pip install --no-deps 'gradio>=6.31,<7'"
        super().__init__(f"{what} needs the '{extra}' extra: {install}")
        self.extra = extra


class StoppedError(FewclipError):
    """A long job was stopped on request (Ctrl-C, Cancel).

    Args:
        message: what was stopped and how to go on.
        checkpoint: folder of the checkpoint that was kept, if any.
    """

    def __init__(self, message: str, checkpoint: str | None = None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint
