"""Units of measurement after a number: what they measure and what they are worth in base units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A product of powers of base units. Two units measure the same if their dimensions are equal."""

    dimension: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)

    @property
    def is_percent(self) -> bool:
        return self.dimension == (("percent", 1),)


_TABLE = """
length m metre meter; 1000 km kilometre kilometer; 1/100 cm centimetre centimeter; 1/1000 mm millimetre millimeter; \
1/1000000 um μm µm micrometre micrometer; 1/1000000000 nm nanometre nanometer; \
1609344/1000 mi mile; 3048/10000 ft foot feet; 254/10000 in inch inches; 9144/10000 yd yard
mass g gram; 1000 kg kilogram kilo; 1/1000 mg milligram; 1000000 t tonne ton; 45359237/100000 lb lbs pound
time s sec second; 60 min minute; 3600 h hr hour; 86400 d day; 604800 week; 1/1000 ms millisecond; \
1/1000000 us μs µs microsecond; 1/1000000000 ns nanosecond
energy J joule; 1000 kJ kilojoule; 1000000 MJ megajoule; 4184/1000 cal calorie; 4184 kcal kilocalorie; \
3600 Wh; 3600000 kWh
volume L l liter litre; 1/1000 mL ml milliliter millilitre
angle degree deg
force N newton; 1000 kN kilonewton
power W watt; 1000 kW kilowatt
pressure Pa pascal; 1000 kPa kilopascal
frequency Hz hertz; 1000 kHz kilohertz
charge C coulomb
current A ampere amp; 1/1000 mA milliampere
voltage V volt; 1/1000 mV millivolt
amount mol mole; 1/1000 mmol millimole
temperature K kelvin
money dollar usd; 1/100 cent
euro eur euro
percent % percent pct percentage
"""


def _units() -> dict[str, tuple[str, Fraction]]:
    units = {}
    for line in _TABLE.strip().splitlines():
        base, _, rest = line.partition(" ")
        for entry in rest.split("; "):
            words = entry.split()
            factor = Fraction(words.pop(0)) if words[0][0].isdigit() else Fraction(1)
            for word in words:
                units[word] = (base, factor)
                if len(word) > 2:
                    units[word + "s"] = units[word.capitalize()] = (base, factor)
    return units


_UNITS = _units()
_POWER = re.compile(r"(square |cubic )?([A-Za-zμµ%]+)(?:\^?\{?(-?[0-9])\}?)?")


def read_unit(text: str) -> Unit | None:
    """ "km", "km/h", "m s^-2", "g per cubic cm", "cm^2" -> Unit; None where a word is no unit."""
    dimension: dict[str, int] = {}
    factor = Fraction(1)
    sign = 1
    for part in re.split(r"\s*(/|\bper\b)\s*", text.strip()):
        if part in ("/", "per"):
            sign = -1
            continue
        for atom in re.findall(r"(?:square |cubic )?\S+", part.replace("\\cdot", " ").replace("*", " ")):
            match = _POWER.fullmatch(atom)
            if match is None or match[2] not in _UNITS:
                return None
            exponent = sign * int(match[3] or {None: 1, "square ": 2, "cubic ": 3}[match[1]])
            base, worth = _UNITS[match[2]]
            dimension[base] = dimension.get(base, 0) + exponent
            factor *= worth**exponent
    if not dimension:
        return None
    return Unit(tuple(sorted((b, e) for b, e in dimension.items() if e)), factor)
