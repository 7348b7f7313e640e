"""Options of the command line. Invariant: whatever cannot be ends in a `Failure` of one line that names the option, the
value, and what would be accepted, before anything is started."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn

from pipeline.records import Failure


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}; `{self.prog} --help` lists what there is")


def at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {least} on, of at most 9 digits")
        return int(text)

    return count


def more_than_none(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")
    return value
