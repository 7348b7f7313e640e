"""The executing verifier's reader: the controlled language (pipeline/domains/mini/LANGUAGE.md) as a grammar for lark.

Invariant: `parse` accepts exactly the texts of that page. Its result holds names of rules and bounded integers only, no
text of the problem, so that a program can be written from it. The symbolic verifier reads with regular expressions
(`controlled`); the two share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

LONGEST = 2_000
"""Characters; no text of the language has more."""
MAX_STEPS = 8

_GRAMMAR = r"""
text: sentence (" " sentence)*
sentence: opening | step | question

opening: NAME " has " NUMBER " " THINGS "."                                      -> has
    | "A list holds " NUMBER (", " NUMBER)* " and " NUMBER "."                   -> list
    | "A car moves at " NUMBER " km per hour for " NUMBER " hours."              -> distance
    | "A block of " NUMBER " cubic cm weighs " NUMBER " g per cubic cm."         -> mass
    | "A test runs for " NUMBER " days."                                         -> duration

step: NAME (" finds " | " buys ") NUMBER " more."                                -> add
    | NAME (" gives away " | " loses ") NUMBER "."                               -> subtract
    | "Then " NAME " has " NUMBER " times as many."                              -> multiply
    | NAME " splits them evenly into " NUMBER " bags and keeps one bag."         -> share
    | NAME " shares them equally among " NUMBER " boxes and keeps one box."      -> share
    | NAME " packs them in rows of " NUMBER " and keeps the rest."               -> remainder
    | NAME " fills boxes of " NUMBER " and keeps what is left."                  -> remainder
    | "Take the greatest common divisor with " NUMBER "."                        -> gcd
    | "Take the largest number that divides both it and " NUMBER "."             -> gcd
    | "Take the least common multiple with " NUMBER "."                          -> lcm
    | "Take the smallest number that both it and " NUMBER " divide."             -> lcm
    | ("Add up the digits." | "Take the sum of the digits.")                     -> digit_sum
    | "Keep the larger of it and " NUMBER "."                                    -> larger
    | "If it is below " NUMBER ", take " NUMBER " instead."                      -> replaced
    | ("Keep only the even values." | "Drop every odd value.")                   -> keep_even
    | "Keep only the values above " NUMBER "."                                   -> keep_above
    | ("Add " NUMBER " to every value." | "Raise every value by " NUMBER ".")    -> add_each
    | ("Add up all values." | "Take the sum of the list.")                       -> list_sum
    | ("Take the largest value." | "Take the maximum of the list.")              -> list_max
    | ("Take the smallest value." | "Take the minimum of the list.")             -> list_min
    | ("Count the values." | "Take the length of the list.")                     -> count
    | "Take value number " NUMBER "."                                            -> position
    | ("Double the result." | "Take twice the result.")                          -> double
    | "Take the result modulo " NUMBER "."                                       -> modulo
    | "Divide the result by " NUMBER " and keep the remainder."                  -> modulo
    | ("Convert the distance to metres." | "Express the distance in metres.")    -> km_to_m
    | ("Convert the mass to milligrams." | "Express the mass in milligrams.")    -> g_to_mg
    | ("Convert the time to minutes." | "Express the time in minutes.")          -> h_to_min
    | ("Then it moves " NUMBER " metres further." | "It goes on for " NUMBER " metres.") -> travel_more
    | ("Another " NUMBER " g are added." | "It gains " NUMBER " g.")             -> add_mass
    | ("It needs " NUMBER " kJ per km." | "Each km costs " NUMBER " kJ.")        -> fuel
    | "Take one of " NUMBER " equal parts."                                      -> part
    | "Divide it into " NUMBER " equal parts and take one."                      -> part
    | "This happens " NUMBER " times in total."                                  -> repeat

question: "How many " THINGS " does " NAME " have now?"                          -> how_many
    | "What is the number now?"                                                  -> number
    | "Is the number now even or odd?"                                           -> parity
    | "Is the number now a multiple of " NUMBER "?"                              -> multiple
    | "What is the final value?"                                                 -> final_value
    | "What is the final list?"                                                  -> final_list
    | "How many " UNIT " is that?"                                               -> how_much

NAME: "Mia" | "Tom" | "Ana" | "Ben" | "Eva" | "Leo" | "Ida" | "Max" | "Zoe" | "Sam" | "Lea" | "Jon"
THINGS: "stones" | "coins" | "apples" | "cards" | "books" | "shells" | "stamps" | "pens" | "cups" | "nuts" | "beads"
    | "keys"
UNIT: "kilometres" | "metres" | "grams" | "milligrams" | "kilojoules" | "hours" | "minutes"
NUMBER: /(0|[1-9][0-9]{0,3})(?![0-9])/
"""

_PARSER = Lark(_GRAMMAR, start="text", parser="lalr", propagate_positions=False)

_OPENINGS = ("has", "list", "distance", "mass", "duration")
_QUESTIONS = ("how_many", "number", "parity", "multiple", "final_value", "final_list", "how_much")


@dataclass(frozen=True)
class Sentence:
    rule: str
    numbers: tuple[int, ...]
    unit: str = ""
    """The unit's word, of a question for a quantity."""


@dataclass(frozen=True)
class Fault:
    flag: str
    reason: str


def parse(text: str) -> tuple[Sentence, ...] | Fault:
    """The sentences of a problem, opening first, question last; or what keeps the text from being one."""
    if not text or text.isspace():
        return Fault("underspecified", "there is no text")
    if len(text) > LONGEST:
        return Fault("ambiguous", f"{len(text)} characters, at most {LONGEST} are read")
    try:
        tree = _PARSER.parse(text)
    except UnexpectedInput as e:
        return Fault("ambiguous", f"no sentence of the language from character {e.column} on")
    rules = [rule for sentence in _trees(tree) for rule in _trees(sentence)]
    spoken = [(str(rule.data), [token for token in rule.children if isinstance(token, Token)]) for rule in rules]
    sentences = [_sentence(rule, tokens) for rule, tokens in spoken]
    words = [token for _, tokens in spoken for token in tokens]
    return _shape(sentences) or _one_of_each(words) or _replaced(sentences)


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _sentence(rule: str, tokens: Sequence[Token]) -> Sentence:
    numbers = tuple(int(token) for token in tokens if token.type == "NUMBER")
    return Sentence(rule, numbers, next((str(token) for token in tokens if token.type == "UNIT"), ""))


def _shape(sentences: list[Sentence]) -> Fault | None:
    """An opening, steps, a question."""
    begins = [s.rule in _OPENINGS for s in sentences]
    asks = [s.rule in _QUESTIONS for s in sentences]
    if not any(asks):
        return Fault("underspecified", "nothing is asked")
    if not begins[0]:
        return Fault("underspecified", "it does not say with what it begins")
    if sum(asks) > 1 or not asks[-1] or sum(begins) > 1:
        return Fault("ambiguous", "more than an opening, steps and a question at the end")
    if len(sentences) - 2 > MAX_STEPS:
        return Fault("ambiguous", f"{len(sentences) - 2} steps, at most {MAX_STEPS} are read")
    holds = sentences[0]
    if holds.rule == "list" and len(holds.numbers) > 9:
        return Fault("ambiguous", f"a list of {len(holds.numbers)} values, at most 9 are read")
    return None


def _one_of_each(words: Sequence[Token]) -> Fault | None:
    """One person, one kind of thing."""
    for kind in ("NAME", "THINGS"):
        different = {str(token) for token in words if token.type == kind}
        if len(different) > 1:
            return Fault("ambiguous", f"{len(different)} different words for one {kind.lower()}")
    return None


def _replaced(sentences: list[Sentence]) -> tuple[Sentence, ...] | Fault:
    """What is 9 where it was below 9 is the larger of it and 9; with two different numbers it is nothing known."""
    read = []
    for s in sentences:
        if s.rule == "replaced":
            if s.numbers[0] != s.numbers[1]:
                return Fault("ambiguous", f"below {s.numbers[0]} it becomes {s.numbers[1]}")
            s = Sentence("larger", s.numbers[:1])
        read.append(s)
    return tuple(read)
