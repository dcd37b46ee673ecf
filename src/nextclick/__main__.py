"""``python -m nextclick``, for launchers that start modules, such as torchrun."""

from nextclick.cli import main

main(prog_name="nextclick")
