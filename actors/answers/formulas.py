"""Formulas, parsed and compared inside the sandbox. This file is sent there as source; nothing here runs outside.

`parse` turns one answer, whatever it does while it is parsed, into a tree of plain JSON. What two readers would read
in two ways is refused there: unknown, rather than an outcome that depends on the notation. `decide` is given two trees
and rebuilds them from a fixed list of constructors, so that no text is evaluated where a verdict is made.

A tree is ["Name", part, ...]; leaves are ["Integer", "12"], ["Rational", "1", "3"], ["Float", "0.5"], ["Symbol", "x"].
"""

import itertools
import random
import re

import sympy as sp

CONSTANTS = {"Pi": sp.pi, "Exp1": sp.E, "ImaginaryUnit": sp.I, "Infinity": sp.oo, "NegativeInfinity": -sp.oo}
CONSTANTS |= {"EmptySet": sp.EmptySet, "Reals": sp.S.Reals, "Integers": sp.S.Integers, "Naturals": sp.S.Naturals}
FUNCTION_NAMES = """
Add Mul Pow Abs sqrt exp log sin cos tan cot sec csc asin acos atan sinh cosh tanh floor ceiling factorial binomial
gcd lcm Max Min Mod re im conjugate arg Tuple FiniteSet Interval Union Intersection Complement ProductSet
Eq Ne Lt Le Gt Ge And Or Not Derivative Integral Sum Product Limit
"""
FUNCTIONS = {name: getattr(sp, name) for name in FUNCTION_NAMES.split()}
ALIASES = {
    "Equality": "Eq",
    "Unequality": "Ne",
    "StrictLessThan": "Lt",
    "LessThan": "Le",
    "StrictGreaterThan": "Gt",
    "GreaterThan": "Ge",
    "UnevaluatedExpr": "Add",
    "BooleanTrue": "And",
    "BooleanFalse": "Or",
}
PLAIN = re.compile(r"[\w\s+\-*/^().,=!|]+")
LATEX = re.compile(r"\\|[{}_\[\]<>]|^\(.*,.*\)$")
REFUSED = re.compile(r"['\"#`]|\b0[xXoObB]|[0-9]\.[0-9]+\.|[0-9][jJ]\b")
"""What one of the parsers reads as something else: primes, Python's other numbers, 1.2.3."""
SIGNS = (
    (r"√\s*([0-9]+|[A-Za-z]|\([^()]*\))", r"sqrt(\1)"),
    ("π", "pi"),
    ("[×·]", "*"),
    ("÷", "/"),
    ("²", "^2"),
    ("³", "^3"),
    ("[−–]", "-"),
    ("≤", "<="),
    ("≥", ">="),
    (r"≠|!=", r"\\ne "),
    (r"\\varnothing|∅", r"\\emptyset "),
    (r"∞|\\infty\b|(?<!\\)\b(?:infinity|infty|inf)\b", "oo"),
)
COMMANDS = (
    "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|min|max|gcd|"
    "pi|alpha|beta|gamma|delta|theta|phi"
)
LETTERS = {name: sp.Symbol(name) for name in ("E", "N", "Q", "S", "beta", "gamma")}
"""Names that sympy gives a meaning which nobody who writes an answer means."""
GREEK = frozenset({"alpha", "beta", "gamma", "delta", "theta", "phi"})
CONVENTIONS = {"e": sp.E, "ln": sp.log, **LETTERS}


RELATION = re.compile(r"<|>|\\(?:lt|gt|leq?|geq?|ne|neq)(?:slant)?(?![A-Za-z])")
EMPTY = re.compile(r"emptyset|\\\{\s*\\\}|\{\s*\}|\\cap|setminus|backslash")


class Unreadable(Exception):
    pass


def parse(text):
    """The tree of an answer, or None where it is no formula."""
    try:
        tree = to_tree(read(text))
        for pattern, replacement in SIGNS:
            text = re.sub(pattern, replacement, text)
        return None if tree == ["EmptySet"] and not EMPTY.search(text) else tree  # (3, 1) is a point, no interval
    except Exception:
        return None


def read(text):
    for pattern, replacement in SIGNS:
        text = re.sub(pattern, replacement, text)
    claims = re.split(r"\s*(,|\bor\b|\band\b)\s*", text)
    if len(claims) > 1 and all(RELATION.search(claim) for claim in claims[::2]):
        return joined([read(claim) for claim in claims[::2]], set(claims[1::2]))
    letters = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", text))
    if REFUSED.search(text) or any(c != c.lower() and c.lower() in letters for c in letters):
        raise Unreadable(text)  # N and n are one letter here, as LaTeX is read without regard to case
    if function := re.fullmatch(r"\s*([A-Za-z])\(([A-Za-z])\)\s*=(?!=)(.+)", text, re.DOTALL):
        return sp.Eq(sp.Function(function[1])(sp.Symbol(function[2])), read(function[3]), evaluate=False)
    if PLAIN.fullmatch(text) and not LATEX.search(text) and not ("=" in text and "," in text):
        try:
            return read_plain(text)
        except Unreadable:
            raise
        except Exception:  # not as Python writes it; perhaps as LaTeX does
            pass
    return read_latex(text)


def joined(claims, marks):
    """x < -1 or x > 3. A comma says whichever of "and" and "or" says something."""
    if marks in ({"or"}, {"and"}):
        return {"or": sp.Or, "and": sp.And}[marks.pop()](*claims, evaluate=False)
    sets = [solution(claim) for claim in claims]
    if marks != {","} or None in sets or len(set().union(*(c.free_symbols for c in claims))) > 1:
        raise Unreadable(claims)
    both, either = sp.Intersection(*sets) == sp.EmptySet, sp.Union(*sets) == sp.Interval(-sp.oo, sp.oo)
    if both == either:
        raise Unreadable(claims)
    return (sp.Or if both else sp.And)(*claims, evaluate=False)


def read_latex(text):
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    text = re.sub(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*\{?\\circ\}?", r"(\1\\frac{\\pi}{180})", text)
    text = re.sub(r"(?<!\\)\bsqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(rf"(?<![\\A-Za-z])({COMMANDS})(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\boo\b", r"\\infty ", text)
    bare = re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    if re.search(r"\\circ|[A-Za-z]{3,}", bare) or "\\circ" in text:
        raise Unreadable(text)  # a word would be read as a product of letters, a degree sign over
    whole = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    found = math_verify.parse(
        f"${text}$",
        extraction_config=[math_verify.LatexExtractionConfig(normalization_config=whole)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    if not found:
        raise Unreadable(text)
    return found[0]


def read_plain(text):
    """sqrt(2)/2, 2x + 1, 2ab, x^2 = 4, as people type them."""
    from sympy.parsing.sympy_parser import (
        convert_xor,
        implicit_application,
        implicit_multiplication,
        parse_expr,
        split_symbols_custom,
        standard_transformations,
    )

    split = split_symbols_custom(lambda name: len(name) == 2 and name.isalpha() and name not in ("mu", "nu", "xi"))
    rules = (*standard_transformations, convert_xor, split, implicit_multiplication, implicit_application)
    sides = re.split(r"(?<![<>!=])=(?!=)", text)
    parsed = [parse_expr(side, local_dict=dict(CONVENTIONS), transformations=rules) for side in sides]
    for name in {s.name for side in parsed for s in getattr(side, "free_symbols", ())}:
        if len(name) > 2 and name not in GREEK:
            raise Unreadable(name)  # a word of maths between numbers: 5 mod 3
    return parsed[0] if len(parsed) == 1 else sp.Eq(parsed[-2], parsed[-1], evaluate=False)


def to_tree(node, bound=()):
    """`bound`: names that a sum or an integral runs over; elsewhere i is the imaginary unit, in either notation."""
    if isinstance(node, (tuple, list)):
        return ["Tuple", *(to_tree(part, bound) for part in node)]
    if isinstance(node, sp.MatrixBase):
        return ["Matrix", *(["Tuple", *(to_tree(cell, bound) for cell in row)] for row in node.tolist())]
    if node.is_Integer:
        return ["Integer", str(node)]
    if node.is_Rational:
        return ["Rational", str(node.p), str(node.q)]
    if node.is_Float:
        return ["Float", str(node)]
    if node.is_Symbol:
        name = node.name.lower()
        return ["ImaginaryUnit"] if name == "i" and name not in bound else ["Symbol", name]
    name = type(node).__name__
    if name in CONSTANTS:
        return [name]
    if isinstance(node, sp.core.function.AppliedUndef):
        return ["Call", name, *(to_tree(part, bound) for part in node.args)]
    if name == "Interval":
        ends = [to_tree(end, bound) for end in (node.start, node.end)]
        return ["Interval", *ends, bool(node.left_open), bool(node.right_open)]
    if isinstance(node, sp.concrete.expr_with_limits.ExprWithLimits):
        bound = (*bound, *(variable.name.lower() for variable in node.variables))
    parts = getattr(node, "_unsorted_args", node.args)
    return [ALIASES.get(name, name), *(to_tree(part, bound) for part in parts)]


def build(tree):
    """The sympy value of a tree. Names that are not listed here are refused."""
    from latex2sympy2_extended.logic import And
    from latex2sympy2_extended.sets import FiniteSet

    name, *parts = tree
    if name == "Symbol":
        return sp.Symbol(str(parts[0]))
    if name == "Integer":
        return sp.Integer(int(parts[0]))
    if name == "Rational":
        return sp.Rational(int(parts[0]), int(parts[1]))
    if name == "Float":
        if float(parts[0]) in (float("inf"), float("-inf")):
            raise Unreadable("beyond a float")
        return sp.Float(str(float(parts[0])))
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name == "Matrix":
        return sp.Matrix([[build(cell) for cell in row[1:]] for row in parts])
    if name == "Call":
        return sp.Function(str(parts[0]))(*map(build, parts[1:]))
    if name == "Interval":
        return sp.Interval(build(parts[0]), build(parts[1]), bool(parts[2]), bool(parts[3]))
    if name not in FUNCTIONS:
        raise Unreadable(name)
    if name == "Eq":  # evaluated, x = {1, 2} is false
        return sp.Eq(*map(build, parts), evaluate=False)
    if name in ("And", "FiniteSet"):  # math-verify's own, which remember the order they were written in
        return {"And": And, "FiniteSet": FiniteSet}[name](*map(build, parts))
    return FUNCTIONS[name](*map(build, parts))


def decide(left, right):
    """ "equal", "different" or "unknown" for two trees: equal by proof, different by an example."""
    try:
        return same(*unnamed(build(left), build(right)))
    except Exception:
        return "unknown"


def unnamed(a, b):
    """x = 5 against 5, x in (1, 2) against 1 < x < 2: the name is dropped. Two equations keep unlike ones."""
    a, b = (v.rhs if isinstance(v, sp.Eq) and isinstance(v.rhs, sp.Set) else v for v in (a, b))
    named = [isinstance(v, sp.Eq) and is_name(v.lhs) and not v.rhs.has(v.lhs) for v in (a, b)]
    if all(named) and a.lhs == b.lhs:
        return a.rhs, b.rhs
    if named[0] and not isinstance(b, sp.core.relational.Relational):
        a = a.rhs
    if named[1] and not isinstance(a, sp.core.relational.Relational):
        b = b.rhs
    return a, b


def is_name(value):
    """x, or f(x)."""
    return value.is_Symbol or isinstance(value, sp.core.function.AppliedUndef)


def is_scalar(value):
    return isinstance(value, sp.Expr) and not isinstance(value, sp.MatrixBase)


def same(a, b):
    if is_scalar(a) and is_scalar(b):
        return same_number(a, b)
    if isinstance(a, sp.MatrixBase) and isinstance(b, sp.MatrixBase):
        if a.shape != b.shape:
            return "different"
        return combine(same_number(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    sets = [solution(v) if is_claim(v) else v for v in (a, b)]
    alike = not (is_claim(a) and is_claim(b)) or a.free_symbols == b.free_symbols
    if alike and all(isinstance(v, sp.Set) for v in sets) and (is_claim(a) or is_claim(b)):
        return same_set(*sets)
    if is_claim(a) and is_claim(b):
        return same_claim(a, b)
    if isinstance(a, sp.FiniteSet) and isinstance(b, sp.FiniteSet):
        return same_members(a.args, b.args)
    if isinstance(a, sp.Set) and isinstance(b, sp.Set):
        return same_set(a, b)
    if (is_claim(a) and is_scalar(b)) or (is_scalar(a) and is_claim(b)):
        return "unknown"  # 2 = 3 is not 3
    return "equal" if proven(a, b) else "unknown"


def proven(a, b):
    """math-verify says equal. It also says no when it fails, so that its no says nothing."""
    import math_verify

    options = {"timeout_seconds": None, "allow_set_relation_comp": True}
    return math_verify.verify(a, b, **options) or math_verify.verify(b, a, **options)


def combine(outcomes):
    outcomes = set(outcomes)
    return "different" if "different" in outcomes else "unknown" if "unknown" in outcomes else "equal"


# ---------------------------------------------------------------- numbers and formulas


def same_number(a, b):
    decimals = [v for v in (a, b) if v.has(sp.Float)]
    x, y = (v.xreplace({f: sp.Rational(str(float(f))) for f in v.atoms(sp.Float)}) for v in (a, b))
    difference = x - y
    if difference == 0:
        return "equal"
    if not x.free_symbols | y.free_symbols:
        return same_constant(x, y, [float(v) for v in decimals if v.is_Float], bool(decimals))
    if difference.equals(0) or sp.simplify(difference) == 0:
        return "equal"
    return "different" if differ_somewhere(x, y, 1e-4 if decimals else 1e-20) else "unknown"


def same_constant(x, y, written, rounded):
    """`written`: decimals that stand alone, which may be rounded at their last digit; `rounded`: some are inside."""
    if x.is_infinite or y.is_infinite:
        return "equal" if x == y else "different" if x.is_finite or y.is_finite else "unknown"
    difference = x - y
    if difference.is_Rational is not True and not rounded and (difference.equals(0) or sp.simplify(difference) == 0):
        return "equal"
    p, q = sp.N(x, 60), sp.N(y, 60)
    gap, size = abs(p - q), max(abs(p), abs(q))
    if rounded and (gap <= sp.Float("5e-7") * size or any(rounds(v, gap, size) for v in written)):
        return "equal"
    if difference.is_Rational or gap > sp.Float("1e-30") * size:
        return "different"
    return "unknown"


def rounds(decimal, gap, size):
    """The decimal, of six digits at least, rounds the other number or cuts it off at its last digit."""
    from decimal import Decimal

    _, digits, exponent = Decimal(str(decimal)).as_tuple()
    last = sp.Float(10) ** exponent
    return len(digits) >= 6 and (gap <= last / 2 or (gap < last and abs(decimal) < size))


def points(symbols, count=8):
    """Positive rational ones, always the same."""
    rng = random.Random(0)
    for _ in range(count):
        yield {s: sp.Rational(rng.randint(101, 999), rng.randint(101, 999)) for s in symbols}


def differ_somewhere(a, b, clearly):
    """At some point the two differ by more than `clearly`, relative to their size: enough to call them different."""
    for point in points(sorted(a.free_symbols | b.free_symbols, key=str)):
        p, q = (sp.N(v.subs(point), 40) for v in (a, b))
        finite = p.is_number and q.is_number and p.is_finite and q.is_finite
        if finite and abs(p - q) > clearly * max(abs(p), abs(q)):
            return True
    return False


# ---------------------------------------------------------------- equations and inequalities


def is_claim(value):
    return isinstance(value, (sp.core.relational.Relational, sp.logic.boolalg.Boolean))


def same_claim(a, b):
    """Equal if each is a multiple of the other, different if one holds at a point where the other does not."""
    if multiples(a, b) or proven(a, b):
        return "equal"
    relations = {r for claim in (a, b) for r in claim.atoms(sp.core.relational.Relational)} | {
        r for r in (a, b) if isinstance(r, sp.core.relational.Relational)
    }
    symbols = sorted(set().union(*(r.free_symbols for r in relations)), key=str)
    for point in points(symbols):
        for candidate in [point, *borders(relations, symbols, point)]:
            truth = {claim.subs(candidate) for claim in (a, b)}
            if truth == {sp.true, sp.false}:
                return "different"
    return "unknown"


def borders(relations, symbols, point):
    """Points where the two sides of a relation meet: for each symbol solved for, the others as in `point`."""
    for relation in sorted(relations, key=str):
        for symbol in symbols:
            others = {s: value for s, value in point.items() if s != symbol}
            for root in sp.solve((relation.lhs - relation.rhs).subs(others), symbol):
                yield {**others, symbol: root}


def solution(claim):
    """The real numbers for which inequalities of one unknown hold; None where that is not plain to see."""
    if not is_claim(claim) or len(claim.free_symbols) != 1:
        return None
    if type(claim).__name__ in ("And", "Or"):
        parts = [solution(part) for part in claim.args]
        joint = sp.Intersection if type(claim).__name__ == "And" else sp.Union
        return None if None in parts else joint(*parts)
    (name,), gap = claim.free_symbols, claim.lhs - claim.rhs
    if not isinstance(claim, (sp.Lt, sp.Le, sp.Gt, sp.Ge, sp.Ne)) or not gap.is_polynomial(name):
        return None
    roots = sorted({root for root in sp.solve(gap, name) if root.is_real}, key=sp.N)
    ends = [-sp.oo, *roots, sp.oo]
    spans = [(x, y) for x, y in itertools.pairwise(ends) if claim.subs(name, marked(x, y))]
    return sp.Union(*(sp.Interval.open(*span) for span in spans), sp.FiniteSet(*filter(holds(claim, name), roots)))


def holds(claim, name):
    return lambda value: bool(claim.subs(name, value))


def marked(low, high):
    """A point between the two."""
    if low.is_finite and high.is_finite:
        return (low + high) / 2
    return high - 1 if high.is_finite else low + 1 if low.is_finite else sp.Integer(0)


def multiples(a, b):
    """2x > 6 and x > 3."""
    if not all(isinstance(v, sp.core.relational.Relational) for v in (a, b)):
        return False
    turned = [v.reversed if isinstance(v, (sp.Lt, sp.Le)) else v for v in (a, b)]
    if turned[0].func != turned[1].func:
        return False
    gaps = [v.lhs - v.rhs for v in turned]
    ratio = sp.simplify(gaps[0] / gaps[1])
    return bool(ratio.is_number and (ratio.is_positive or (isinstance(a, (sp.Eq, sp.Ne)) and ratio.is_nonzero)))


# ---------------------------------------------------------------- sets


def same_members(xs, ys):
    """Every member of one is a member of the other."""
    outcomes = []
    for here, there in ((xs, ys), (ys, xs)):
        for x in here:
            found = {same(x, y) for y in there}
            outcomes.append("equal" if "equal" in found else "unknown" if "unknown" in found else "different")
    return combine(outcomes)


def same_set(a, b):
    """Different if a number is in one and not in the other. (1, 2) and [1, 2] may also be two lists: unknown."""
    if proven(a, b):
        return "equal"
    if isinstance(a, sp.Interval) and isinstance(b, sp.Interval) and (a.start, a.end) == (b.start, b.end):
        openness = {(bool(v.left_open), bool(v.right_open)) for v in (a, b)}
        if openness == {(True, True), (False, False)}:
            return "unknown"
    ends = {end for v in (a, b) for i in v.atoms(sp.Interval) for end in (i.start, i.end)}
    ends |= {x for v in (a, b) for members in v.atoms(sp.FiniteSet) for x in members.args}
    marks = sorted((e for e in ends if e.is_finite and e.is_real), key=sp.N) or [sp.Integer(0)]
    between = [(x + y) / 2 for x, y in itertools.pairwise(marks)]
    found = [{a.contains(x), b.contains(x)} for x in (*marks, *between, marks[0] - 1, marks[-1] + 1)]
    if {sp.true, sp.false} in found:
        return "different"
    told = [s.is_Union or s.is_Interval for s in (a, b)] + [f in ({sp.true}, {sp.false}) for f in found]
    return "equal" if all(told) else "unknown"
