"""Formulas, parsed and compared inside the sandbox. This file is sent there as source; nothing here runs outside.

`parse` turns one answer, whatever it does while it is parsed, into a tree of plain JSON. `decide` is given two trees
and rebuilds them from a fixed list of constructors, so that no text is evaluated where a verdict is made.

A tree is ["Name", part, ...]; leaves are ["Integer", "12"], ["Rational", "1", "3"], ["Float", "0.5"], ["Symbol", "x"].
"""

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
CONVENTIONS = {"e": sp.E, "i": sp.I, "ln": sp.log}


class Unreadable(Exception):
    pass


def parse(text):
    """The tree of an answer, or None where it is no formula."""
    try:
        return to_tree(read(text))
    except Exception:
        return None


def read(text):
    if not LATEX.search(text):
        try:
            return read_plain(text)
        except Exception:  # not as Python writes it; perhaps as LaTeX does
            pass
    return read_latex(re.sub(r"(?<!\\)\b(?:oo|infinity|inf)\b|∞", r"\\infty", text))


def read_latex(text):
    import math_verify

    found = math_verify.parse(
        f"${text}$",
        extraction_config=[math_verify.LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    if not found:
        raise Unreadable(text)
    return found[0]


def read_plain(text):
    """sqrt(2)/2, 2x + 1, x^2 = 4, as people type them."""
    from sympy.parsing.sympy_parser import (
        convert_xor,
        implicit_application,
        implicit_multiplication,
        parse_expr,
        standard_transformations,
    )

    if not PLAIN.fullmatch(text):
        raise Unreadable(text)
    rules = (*standard_transformations, convert_xor, implicit_multiplication, implicit_application)
    sides = re.split(r"(?<![<>!=])=(?!=)", text)
    parsed = [parse_expr(side, local_dict=dict(CONVENTIONS), transformations=rules) for side in sides]
    return parsed[0] if len(parsed) == 1 else sp.Eq(parsed[-2], parsed[-1], evaluate=False)


def to_tree(node):
    if isinstance(node, (tuple, list)):
        return ["Tuple", *map(to_tree, node)]
    if isinstance(node, sp.MatrixBase):
        return ["Matrix", *(["Tuple", *map(to_tree, row)] for row in node.tolist())]
    if node.is_Integer:
        return ["Integer", str(node)]
    if node.is_Rational:
        return ["Rational", str(node.p), str(node.q)]
    if node.is_Float:
        return ["Float", str(node)]
    if node.is_Symbol:
        return ["Symbol", node.name]
    name = type(node).__name__
    if name in CONSTANTS:
        return [name]
    if isinstance(node, sp.core.function.AppliedUndef):
        return ["Call", name, *map(to_tree, node.args)]
    if name == "Interval":
        return ["Interval", to_tree(node.start), to_tree(node.end), bool(node.left_open), bool(node.right_open)]
    parts = getattr(node, "_unsorted_args", node.args)
    return [ALIASES.get(name, name), *map(to_tree, parts)]


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
    if name in ("And", "FiniteSet"):  # math-verify's own, which remember the order they were written in
        return {"And": And, "FiniteSet": FiniteSet}[name](*map(build, parts))
    return FUNCTIONS[name](*map(build, parts))


def decide(left, right):
    """ "equal", "different" or "unknown" for two trees."""
    try:
        a, b = unnamed(build(left), build(right))
        if is_scalar(a) and is_scalar(b):
            return same_number(a, b)
        return same_object(a, b)
    except Exception:
        return "unknown"


def unnamed(a, b):
    """x = 5 against 5, x in (1, 2) against 1 < x < 2: the name is dropped. Two equations keep theirs."""
    a, b = (v.rhs if isinstance(v, sp.Eq) and isinstance(v.rhs, sp.Set) else v for v in (a, b))
    named = [isinstance(v, sp.Eq) and v.lhs.is_Symbol for v in (a, b)]
    if named[0] and not isinstance(b, sp.core.relational.Relational):
        a = a.rhs
    if named[1] and not isinstance(a, sp.core.relational.Relational):
        b = b.rhs
    return a, b


def is_scalar(value):
    return isinstance(value, sp.Expr) and not isinstance(value, sp.MatrixBase)


def same_number(a, b):
    """Equal by proof, different by an example at which they clearly differ, else unknown."""
    difference = a - b
    if (a.has(sp.Float) or b.has(sp.Float)) and not difference.free_symbols:
        x, y = sp.N(a, 20), sp.N(b, 20)
        return "equal" if abs(x - y) <= sp.Float("5e-7") * max(abs(x), abs(y)) else "different"
    if difference == 0 or difference.equals(0) or sp.simplify(difference) == 0:
        return "equal"
    return "different" if nonzero_somewhere(difference) else "unknown"


def nonzero_somewhere(difference):
    """Clearly not zero at some positive point: enough to call two formulas different, never to call them equal."""
    rng = random.Random(0)
    symbols = sorted(difference.free_symbols, key=str)
    for _ in range(8):
        point = {s: sp.Rational(rng.randint(101, 999), rng.randint(101, 999)) for s in symbols}
        value = sp.N(difference.subs(point), 30)
        if value.is_number and value.is_finite and abs(value) > sp.Float("1e-10"):
            return True
    return False


def same_object(a, b):
    """Sets, tuples, matrices, equations: math-verify says equal; it also says no when it fails, so that no is
    believed only if nothing went wrong on the way."""
    import math_verify

    options = {"timeout_seconds": None, "raise_on_error": True, "allow_set_relation_comp": True}
    if math_verify.verify(a, b, **options) or math_verify.verify(b, a, **options):
        return "equal"
    if isinstance(a, sp.MatrixBase) and isinstance(b, sp.MatrixBase) and a.shape == b.shape:
        return combine(same_number(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    return "different" if form_of(a) == form_of(b) else "unknown"


def form_of(value):
    """Values of different form are not told apart: the same thing may have been written in two ways."""
    if isinstance(value, (sp.core.relational.Relational, sp.logic.boolalg.Boolean)):
        return "relation"
    return "matrix" if isinstance(value, sp.MatrixBase) else "value"


def combine(outcomes):
    outcomes = set(outcomes)
    return "different" if "different" in outcomes else "unknown" if "unknown" in outcomes else "equal"
