"""What the scripts in ci/ start: a module for each, with a `main` and the whole text of its --help."""

import argparse


def argument_parser(script: str, text: str | None) -> argparse.ArgumentParser:
    """The parser of ci/`script`, whose --help begins with `text` as it is."""
    return argparse.ArgumentParser(
        prog=f"ci/{script}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
