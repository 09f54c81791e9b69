#!/usr/bin/env python3
"""A picture of a command in a terminal, as SVG: its real output, with its colours.

Usage: pictures.py --out OUT.svg [--columns 110] [--lines 30] [--folder DIR] COMMAND...        (needs the package rich)

COMMAND runs in DIR under a pseudo terminal of that many columns; both its outputs are shown, progress bars as they end.
"""
import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def run(command, columns, folder):
    """What COMMAND writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = dict(os.environ, TERM="xterm-256color", COLUMNS=str(columns))
    child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    child.wait()
    return b"".join(parts).decode(errors="replace")


def as_it_ends(text):
    """Without what was written over: a line is what came after its last return, erased parts gone."""
    for code in ("\x1b[2K", "\x1b[?25l", "\x1b[?25h", "\x1b[1A", "\x1b[K"):
        text = text.replace(code, "")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--columns", type=int, default=110)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--folder", default=".")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command:
        sys.exit("pictures.py: no command; see --help")
    text = as_it_ends(run(args.command, args.columns, args.folder)).rstrip("\n")
    shown = [os.path.basename(args.command[0]), *args.command[1:]]
    console = Console(record=True, width=args.columns, file=open(os.devnull, "w"), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (shlex.join(shown), "bold")))
    for line in text.split("\n")[: args.lines]:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis", crop=True)
    picture = console.export_svg(title="oddlog", theme=MONOKAI)
    # The reader's own monospace font, so that the picture loads nothing.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S).replace("Fira Code", "ui-monospace")
    with open(args.out, "w") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
