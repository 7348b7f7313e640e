"""What the scripted teacher knows of each skill: how a text shows it, what to say of it, and its script.

Invariant: the scripts are aware of types and units, so skills that do not go together, or numbers that break a
condition, show up as an error of the tool. A quantity is a pair (number, unit). They are text here; only the sandbox
runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

_FRAMES = {
    "number": ("type(x) is not int", "a number"),
    "list": ("type(x) is not list", "a list"),
    "quantity": ("type(x) is not tuple", "a quantity"),
    "km": ("type(x) is not tuple or x[1] != 'km'", "km"),
    "m": ("type(x) is not tuple or x[1] != 'm'", "m"),
    "g": ("type(x) is not tuple or x[1] != 'g'", "g"),
    "h": ("type(x) is not tuple or x[1] != 'h'", "h"),
}


@dataclass(frozen=True)
class Lore:
    category: str
    cues: str
    """A regular expression: a document that matches shows the skill."""
    intent: str
    action: str
    effect: str
    signature: str
    """Name and arguments of the script's function; takes x, the current value, unless it opens a problem."""
    takes: str
    """Which frame checks x; empty for openings."""
    result: str
    condition: tuple[str, str] = ("", "")
    """(what must not be, complaint): raised before the result."""

    @property
    def script(self) -> str:
        name = self.signature.partition("(")[0]
        lines = [f"def {self.signature}:"]
        if self.takes:
            test, want = _FRAMES[self.takes]
            lines += [f"    if {test}:", f'        raise ValueError(f"{name}: needs {want}, got {{x}}")']
        wrong, complaint = self.condition
        if wrong:
            lines += [f"    if {wrong}:", f'        raise ValueError(f"{name}: {complaint}")']
        return "\n".join([*lines, f"    return {self.result}"]) + "\n"

    @property
    def hint(self) -> str:
        call = self.signature if not self.takes else f"x = {self.signature}"
        return f"In a check, `{call}` works it out and raises an error where it does not fit."


KNOWLEDGE: dict[str, Lore] = {
    # maths
    "add": Lore("maths", r"finds? (\d+|some) more|buys \d+ more|more are added", "some more are added",
                "A known amount joins the current one: add the two.", "One more number to carry along.",
                "add(x, a)", "number", "x + a"),
    "subtract": Lore("maths", r"gives away|loses \d+|taken away", "some are taken away",
                     "Take a known amount away; no more can go than are there.",
                     "The amount left must not fall below zero.",
                     "subtract(x, a)", "number", "x - a", ("a > x", "only {x} are there")),
    "multiply": Lore("maths", r"times as many|grows \d+ times|grows by a factor", "the amount grows by a factor",
                     "Multiply the current amount by a whole factor.", "Numbers grow, so later steps take more care.",
                     "multiply(x, a)", "number", "x * a", ("a < 1", "the factor must be 1 or more")),
    "share": Lore("maths", r"equally among|splits? them evenly|shared? (out )?evenly",
                  "an even split, one part is kept",
                  "Split the amount into equal parts and go on with one; it must divide without a rest.",
                  "The writer must choose numbers that divide.",
                  "share(x, a)", "number", "x // a", ("a < 1 or x % a", "{x} is not a multiple of {a}")),
    "remainder": Lore("maths", r"rows of \d+|boxes of \d+|keeps the rest|left over", "what is left over from full rows",
                      "Fill rows of equal length and go on with what is left over.",
                      "Asks for the rest of a division, which is easily mistaken for the quotient.",
                      "remainder(x, a)", "number", "x % a", ("a < 2", "rows must hold 2 or more")),
    "gcd": Lore("maths", r"greatest common divisor|largest number that divides both", "the greatest common divisor",
                "Find the largest number that divides both.", "Needs factors, not one operation.",
                "gcd(x, a)", "number", "max(d for d in range(1, a + 1) if x % d == a % d == 0)",
                ("x < 1 or a < 1", "needs 1 or more, got {x}")),
    "lcm": Lore("maths", r"least common multiple|smallest number that both", "the least common multiple",
                "Find the smallest number that both divide.", "Needs factors and a product.",
                "lcm(x, a)", "number", "next(m for m in range(x, x * a + 1, x) if m % a == 0)",
                ("x < 1 or a < 1", "needs 1 or more, got {x}")),
    "digit_sum": Lore("maths", r"[Aa]dd up the digits|sum of (its|the) digits", "the sum of the digits",
                      "Add the decimal digits of the number.",
                      "Treats the number as a text, which breaks the habit of arithmetic.",
                      "digit_sum(x)", "number", "sum(map(int, str(x)))"),
    "larger": Lore("maths", r"larger of|instead of a smaller", "the larger of two numbers",
                   "Compare the amount with a bound and keep the larger.", "A branch: one of two numbers goes on.",
                   "larger(x, a)", "number", "max(x, a)"),
    "parity": Lore("maths", r"even or odd", "ask for even or odd",
                   "End with the question whether the number is even or odd.",
                   "The answer is a word, and every earlier slip flips it.",
                   "parity(x)", "number", "'odd' if x % 2 else 'even'"),
    "multiple": Lore("maths", r"now a multiple|asks? (for|whether) .*multiple of", "ask for a multiple, yes or no",
                     "End with the question whether the number is a multiple of another.",
                     "The rest of a division decides yes or no.",
                     "multiple(x, a)", "number", "'no' if x % a else 'yes'",
                     ("a < 2", "the divisor must be 2 or more")),
    # code
    "keep_even": Lore("code", r"even values|[Dd]rop every odd", "only even values stay",
                      "Filter the list: even values stay, in order.", "What follows sees a shorter list.",
                      "keep_even(x)", "list", "[v for v in x if v % 2 == 0]"),
    "keep_above": Lore("code", r"values above|every value up to", "only values above a bound stay",
                       "Filter the list by a bound; the bound itself goes.", "An off-by-one trap at the bound.",
                       "keep_above(x, a)", "list", "[v for v in x if v > a]"),
    "add_each": Lore("code", r"to every value|[Rr]aise every value", "every value grows by a number",
                     "Map the list: the same number is added to each value.", "Many small sums in one step.",
                     "add_each(x, a)", "list", "[v + a for v in x]"),
    "list_sum": Lore("code", r"[Aa]dd up all values|sum of the list", "the sum of the list",
                     "Fold the list into its sum.", "The list is gone afterwards; a number goes on.",
                     "list_sum(x)", "list", "sum(x)"),
    "list_max": Lore("code", r"largest value|maximum of the list", "the largest value",
                     "Fold the list into its largest value; it must not be empty.",
                     "The list is gone afterwards; a number goes on.",
                     "list_max(x)", "list", "max(x)", ("not x", "the list is empty")),
    "list_min": Lore("code", r"smallest value|minimum of the list", "the smallest value",
                     "Fold the list into its smallest value; it must not be empty.",
                     "The list is gone afterwards; a number goes on.",
                     "list_min(x)", "list", "min(x)", ("not x", "the list is empty")),
    "count": Lore("code", r"[Cc]ount the values|length of the list", "how many values there are",
                  "Fold the list into its length.", "Counts what earlier filters left.",
                  "count(x)", "list", "len(x)"),
    "position": Lore("code", r"value (at position|number) ", "the value at a position",
                     "Pick a value by its position, counted from 1.",
                     "Positions count from 1 and move when a filter came before.",
                     "position(x, a)", "list", "x[a - 1]",
                     ("not 1 <= a <= len(x)", "the list has {len(x)} values")),
    "double": Lore("code", r"[Dd]ouble the result|twice the result", "the result is doubled",
                   "Once the list is folded into a number, double it.", "One more operation after the fold.",
                   "double(x)", "number", "2 * x"),
    "modulo": Lore("code", r"result modulo|keep the remainder", "the result modulo a number",
                   "Once the list is folded into a number, keep its remainder.", "Asks for the rest of a division.",
                   "modulo(x, a)", "number", "x % a", ("a < 2", "the divisor must be 2 or more")),
    # science
    "distance": Lore("science", r"km per hour", "distance from speed and time",
                     "Open with a speed and a time; their product is a distance in km.",
                     "Sets the scene and the unit; every later step must fit that unit.",
                     "distance(v, t)", "", "(v * t, 'km')"),
    "mass": Lore("science", r"g per cubic cm|density", "mass from volume and density",
                 "Open with a volume and a density; their product is a mass in grams.",
                 "Sets the scene and the unit; every later step must fit that unit.",
                 "mass(v, d)", "", "(v * d, 'g')"),
    "duration": Lore("science", r"runs for \d+ days|24 hours", "hours from days",
                     "Open with a number of days; 24 hours each give a time in hours.",
                     "Sets the scene and the unit; every later step must fit that unit.",
                     "duration(a)", "", "(24 * a, 'h')"),
    "km_to_m": Lore("science", r"distance (to|in) metres|1000 metres", "kilometres to metres",
                    "One km is 1000 metres.", "The unit changes, and with it what may follow.",
                    "km_to_m(x)", "km", "(x[0] * 1000, 'm')"),
    "g_to_mg": Lore("science", r"(to|in) milligrams|1000 milligrams", "grams to milligrams",
                    "One gram is 1000 milligrams.", "The unit changes, and with it what may follow.",
                    "g_to_mg(x)", "g", "(x[0] * 1000, 'mg')"),
    "h_to_min": Lore("science", r"time (to|in) minutes|60 minutes", "hours to minutes",
                     "One hour is 60 minutes.", "The unit changes, and with it what may follow.",
                     "h_to_min(x)", "h", "(x[0] * 60, 'min')"),
    "travel_more": Lore("science", r"metres further|goes on for", "some metres further",
                        "Add metres to a distance that is already in metres.",
                        "Only fits after a conversion to metres.",
                        "travel_more(x, a)", "m", "(x[0] + a, 'm')"),
    "add_mass": Lore("science", r"\d+ g are added|gains \d+ g", "some grams are added",
                     "Add grams to a mass that is still in grams.", "Only fits a mass in grams.",
                     "add_mass(x, a)", "g", "(x[0] + a, 'g')"),
    "fuel": Lore("science", r"kJ per km|km costs", "energy from distance",
                 "Multiply the kilometres by the energy each one costs.",
                 "Turns a distance in km into an energy in kJ.",
                 "fuel(x, a)", "km", "(x[0] * a, 'kJ')"),
    "part": Lore("science", r"equal parts", "one of equal parts",
                 "Divide the quantity into equal parts and go on with one; it must divide without a rest.",
                 "The writer must choose numbers that divide.",
                 "part(x, a)", "quantity", "(x[0] // a, x[1])",
                 ("a < 1 or x[0] % a", "{x[0]} is not a multiple of {a}")),
    "repeat": Lore("science", r"times in total|[Rr]epeat it", "it happens several times",
                   "Multiply the quantity by how often it happens.", "Numbers grow, so later steps take more care.",
                   "repeat(x, a)", "quantity", "(x[0] * a, x[1])", ("a < 1", "the factor must be 1 or more")),
}  # fmt: skip
"""Keyed by skill id; the ids are those of LANGUAGE.md."""
