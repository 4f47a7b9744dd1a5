"""`fewclip --help` in groups with examples. No subcommand's own help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

GROUPS = {
    "make a model": ("adapt", "compare", "add-classes", "demo"),
    "use it": ("predict", "evaluate", "explain", "info"),
    "look at data": ("check", "suggest"),
    "put it into production": ("export", "serve", "build", "push", "app"),
    "look things up": ("methods", "backbones", "bench", "completion"),
}
EXAMPLES = """\
examples:
  fewclip adapt photos/ --out pets          one folder per class in photos/
  fewclip predict pets a.jpg b.jpg
  fewclip export pets --out pets-onnx
  fewclip serve pets-onnx                   curl -F image=@a.jpg 127.0.0.1:3000/v1/predict

fewclip SUBCOMMAND --help has the rest."""


class GroupedParser(argparse.ArgumentParser):
    """The top-level parser; its help lists `summaries` (subcommand -> one line)."""

    summaries: Mapping[str, str] = {}

    def format_help(self) -> str:
        parts = [f"usage: {self.prog} SUBCOMMAND ... [--help]\n\n{self.description}\n"]
        left = dict(self.summaries)
        groups = [(title, [n for n in names if n in left]) for title, names in GROUPS.items()]
        listed = {name for _, names in groups for name in names}
        groups.append(("more", [name for name in left if name not in listed]))
        for title, names in groups:
            if names:
                lines = "\n".join(f"  {name:<13}{left[name]}" for name in names)
                parts.append(f"{title}:\n{lines}\n")
        return "\n".join([*parts, EXAMPLES]) + "\n"
