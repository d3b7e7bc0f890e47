"""Script files: blocks of commands, `---`, and the output that they had when somebody last looked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.core.harness.language import Script

FOLDER = Path(__file__).parent.parent / "scripts"


@dataclass
class Block:
    """Some commands, with the comments between them, and their output."""

    lines: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)


def parse(text: str) -> list[Block]:
    """Blocks are separated by empty lines behind their output."""
    blocks = []
    for part in text.strip().split("\n\n"):
        commands, _, output = part.partition("\n---")
        blocks.append(Block(commands.split("\n"), output.strip("\n").split("\n") if output.strip("\n") else []))
    return blocks


def run(text: str, name: str) -> str:
    """Run a script's commands and return its text with the output that they have now.

    Raises AssertionError, naming the script and the line, when an expectation or an invariant fails.
    """
    script = Script()
    parts = []
    for block in parse(text):
        output: list[str] = []
        has_commands = False
        for line in block.lines:
            if not line.strip() or line.startswith("#"):
                continue
            has_commands = True
            try:
                output += script.execute(line)
            except Exception as exc:
                exc.add_note(f"{name}: in the line {line!r}; the output of its block so far: {output}")
                raise
        text = "\n".join(block.lines)
        parts.append(text + ("\n---" + "".join("\n" + line for line in output) if has_commands and output else ""))
    return "\n\n".join(parts) + "\n"
