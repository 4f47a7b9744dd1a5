"""What the command line says before it does anything: help, tables, completion, hints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fewclip.cli import main
from fewclip.cli.subcommands import SUBCOMMANDS


def ran(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def test_help_is_grouped_and_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for name, subcommand in SUBCOMMANDS.items():
        assert f"  {name:<13}{subcommand.help}" in text
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 100


def test_methods_lists_the_options_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "methods", "skip-tuning")
    assert status == 0
    assert "--set top_ratio=0.5" in out
    (row,) = json.loads(ran(capsys, "methods", "dept", "--json")[1])
    assert row["name"] == "kgcoop+dept"
    assert row["options"]["dept_weight"] == 0.7
    status, _, err = ran(capsys, "methods", "skip")
    assert status == 2
    assert "skip-tuning" in err


def test_methods_and_backbones_are_tables(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ran(capsys, "methods")[1].splitlines()
    assert next(line for line in lines if line.startswith("kgcoop")).split()[1] == "yes"
    assert not [line for line in lines if line.startswith("kgcoop+dept")]
    assert "0.6 GB" in ran(capsys, "backbones")[1]
    out = ran(capsys, "backbones", "--all")[1]
    assert [line for line in out.splitlines() if line.startswith("RN50/openai ")]
    assert "micro is for trying things out" in out


def test_completion_is_a_script_that_the_shell_reads(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, _ = ran(capsys, "completion", "bash")
    assert status == 0
    script = tmp_path / "fewclip.bash"
    script.write_text(out)
    assert "--shots" in out
    subprocess.run(["bash", "-n", str(script)], check=True)
