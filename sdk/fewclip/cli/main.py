"""The `fewclip` command: arguments in, one exit status out. No subcommand is listed here.

Exit status: 0 done; 2 the user's input is at fault (one line on stderr); 1 our fault (a traceback);
130 stopped by Ctrl-C. With --json exactly one JSON document goes to stdout; all else to stderr.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from fewclip.artifact import DISK_REFUSES
from fewclip.cli.arguments import Arguments, one_line
from fewclip.cli.subcommands import SUBCOMMANDS, parser
from fewclip.errors import FewclipError, InputError, MissingExtraError, StoppedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parse(argv)
    warnings.showwarning = _one_line_warning
    try:
        return SUBCOMMANDS[arguments.subcommand](arguments)
    except StoppedError as error:
        hint = "; the same command with --resume continues from there" if error.checkpoint else ""
        print(f"fewclip: {error}{hint}", file=sys.stderr)
        return 130
    except (InputError, MissingExtraError) as error:
        print(f"fewclip: {one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            traceback.print_exc()
            return 1
        print(f"fewclip: {MissingExtraError(arguments.subcommand, extra)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fewclip: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in DISK_REFUSES:
            traceback.print_exc()
        else:
            where = f": {error.filename}" if error.filename else ""
            print(f"fewclip: cannot write: {error.strerror}{where}", file=sys.stderr)
        return 1
    except (FewclipError, Exception):
        traceback.print_exc()
        return 1


def _parse(argv: list[str]) -> Arguments:
    named = next((word for word in argv if not word.startswith("-")), None)
    return parser({named}).parse_args(argv)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fewclip: warning: {one_line(str(message))}", file=sys.stderr)


def _extra_of(module: str) -> str | None:
    """The extra that installs a module; None when no extra of ours does."""
    homes = {
        "torch": "train",
        "open_clip": "train",
        "safetensors": "train",
        "tqdm": "train",
        "matplotlib": "train",
        "onnx": "export",
        "onnxscript": "export",
        "bentoml": "service",
        "fastapi": "service",
        "gradio": "app",
        "sklearn": "train",
        "shtab": "train",
        "cleanlab": "check",
    }
    return homes.get(module.split(".")[0])


if __name__ == "__main__":
    sys.exit(main())
