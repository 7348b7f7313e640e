"""Units of measurement after a number: what they measure and what they are worth in the base units of the SI.

Derived units are products of base units, so that 1 J is 1 N m and 1 kg m^2/s^2; °C and °F have a zero of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A product of powers of base units. Two units measure the same if their dimensions are equal."""

    dimension: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)
    zero: Fraction = Fraction(0)
    """Where its scale begins, in base units."""

    @property
    def is_percent(self) -> bool:
        return self.dimension == (("percent", 1),)


_WITH_PREFIXES = """
m | metre meter = 1 m
g | gram = 1/1000 kg
s | second = 1 s
A | ampere amp = 1 A
K | kelvin = 1 K
mol | mole = 1 mol
cd | candela = 1 cd
N | newton = 1 kg m s^-2
J | joule = 1 kg m^2 s^-2
W | watt = 1 kg m^2 s^-3
Wh | = 3600 kg m^2 s^-2
Pa | pascal = 1 kg m^-1 s^-2
Hz | hertz = 1 s^-1
C | coulomb = 1 A s
V | volt = 1 kg m^2 s^-3 A^-1
F | farad = 1 kg^-1 m^-2 s^4 A^2
Ω | ohm = 1 kg m^2 s^-3 A^-2
T | tesla = 1 kg s^-2 A^-1
Wb | weber = 1 kg m^2 s^-2 A^-1
H | henry = 1 kg m^2 s^-2 A^-2
L l | litre liter = 1/1000 m^3
t | tonne ton = 1000 kg
cal | calorie = 4184/1000 kg m^2 s^-2
"""
_AS_THEY_ARE = """
sec = 1 s
min minute = 60 s
h hr hour = 3600 s
d day = 86400 s
week = 604800 s
kilo = 1 kg
lb lbs pound = 45359237/100000000 kg
oz ounce = 28349523125/1000000000000 kg
mi mile = 1609344/1000 m
ft foot feet = 3048/10000 m
in inch inches = 254/10000 m
yd yard = 9144/10000 m
ha hectare = 10000 m^2
cc = 1/1000000 m^3
mph = 1609344/3600000 m s^-1
kph kmh kmph = 1000/3600 m s^-1
bar = 100000 kg m^-1 s^-2
atm = 101325 kg m^-1 s^-2
degree deg = 1 degree
dollar usd USD = 1 dollar
cent = 1/100 dollar
euro eur EUR = 1 euro
gbp GBP = 1 sterling
yen jpy JPY = 1 yen
rupee inr INR = 1 rupee
% percent pct percentage = 1 percent
bit = 1 bit
byte = 8 bit
公里 千米 = 1000 m
米 = 1 m
厘米 = 1/100 m
毫米 = 1/1000 m
平方米 = 1 m^2
立方米 = 1 m^3
英里 = 1609344/1000 m
千克 公斤 = 1 kg
克 = 1/1000 kg
秒 = 1 s
分钟 = 60 s
小时 = 3600 s
升 = 1/1000 m^3
毫升 = 1/1000000 m^3
牛 = 1 kg m s^-2
焦 = 1 kg m^2 s^-2
元 人民币 = 1 yuan
"""
_PREFIXES = {
    "giga": ("G", Fraction(10**9)),
    "mega": ("M", Fraction(10**6)),
    "kilo": ("k", Fraction(1000)),
    "hecto": ("h", Fraction(100)),
    "deci": ("d", Fraction(1, 10)),
    "centi": ("c", Fraction(1, 100)),
    "milli": ("m", Fraction(1, 1000)),
    "micro": ("uµμ", Fraction(1, 10**6)),
    "nano": ("n", Fraction(1, 10**9)),
}
_KELVIN = (("K", 1),)
_TEMPERATURES = {
    "c": Unit(_KELVIN, Fraction(1), Fraction(27315, 100)),
    "f": Unit(_KELVIN, Fraction(5, 9), Fraction(45967, 180)),
}


def _units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in _WITH_PREFIXES.strip().splitlines():
        names, _, definition = line.partition(" = ")
        symbols, words = (part.split() for part in names.split("|"))
        unit = _defined(definition)
        for prefix, (letters, worth) in {"": ("", Fraction(1)), **_PREFIXES}.items():
            scaled = Unit(unit.dimension, unit.factor * worth)
            units |= {before + symbol: scaled for symbol in symbols for before in letters or ("",)}
            for word in words:
                units |= dict.fromkeys(_forms(prefix + word), scaled)
    for line in _AS_THEY_ARE.strip().splitlines():
        names, _, definition = line.partition(" = ")
        for name in names.split():
            units |= dict.fromkeys(_forms(name) if len(name) > 2 else [name], _defined(definition))
    return units


def _defined(definition: str) -> Unit:
    worth, *atoms = definition.split()
    powers = [atom.partition("^") for atom in atoms]
    return Unit(tuple(sorted((base, int(power or 1)) for base, _, power in powers)), Fraction(worth))


def _forms(word: str) -> list[str]:
    return [word, word + "s", word.capitalize(), word.capitalize() + "s"]


_UNITS = _units()
_ATOM = re.compile(r"(square |cubic )?([A-Za-zµμΩ%\u4e00-\u9fff]+)(?:\^?\{?([+-]?[0-9])\}?)?")
_TEMPERATURE = re.compile(r"(?:degrees?|deg) ([CcFf])(?:elsius|ahrenheit)?|([Cc])elsius|([Ff])ahrenheit")


def read_unit(text: str) -> Unit | None:
    """ "km", "km/h", "m s^-2", "J/(kg K)", "g per cubic cm" -> Unit; None where a word is no unit, or where it is open
    what a slash divides by ("J/kg K")."""
    text = re.sub(r"\\cdot(?![A-Za-z])|[*·⋅.]", " ", text).strip()
    if match := _TEMPERATURE.fullmatch(text):
        return _TEMPERATURES[next(g for g in match.groups() if g).lower()]
    dimension: dict[str, int] = {}
    factor = Fraction(1)
    for i, part in enumerate(re.split(r"\s*(?:/|\bper\b)\s*", text)):
        sign = -1 if i else 1
        grouped = part.startswith("(") and part.endswith(")")
        atoms = re.findall(r"(?:square |cubic )?\S+", part[1:-1] if grouped else part)
        if i and len(atoms) != 1 and not grouped:
            return None
        for atom in atoms:
            match = _ATOM.fullmatch(atom)
            unit = _UNITS.get(match[2]) if match else None
            if match is None or unit is None:
                return None
            exponent = sign * int(match[3] or {None: 1, "square ": 2, "cubic ": 3}[match[1]])
            for base, power in unit.dimension:
                dimension[base] = dimension.get(base, 0) + power * exponent
            factor *= unit.factor**exponent
    powers = tuple(sorted((base, power) for base, power in dimension.items() if power))
    return Unit(powers, factor) if dimension else None
