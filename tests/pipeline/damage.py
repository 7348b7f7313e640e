"""Damage to the files of a run: what disks, people and other processes do to them. One that has nothing to damage says
False."""

import os
import re
from pathlib import Path

IGNORED = {".lock"}
"""Says who holds the run: nothing else is in it."""


def files(root):
    """Every file of a run that something is written in, by name."""
    found = [p for p in Path(root).rglob("*") if p.is_file() and p.name not in IGNORED]
    return sorted(p.relative_to(root).as_posix() for p in found if p.relative_to(root).parts[0] != ".set-aside")


def kind(name):
    """Of files of one kind, which differ in their numbers only, one is damaged."""
    return re.sub(r"\d{3,}", "N", re.sub(r"skills/\w+/", "skills/N/", name))


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def delete(path, root):
    path.unlink()


def empty(path, root):
    return path.stat().st_size > 0 and path.write_bytes(b"") == 0


def half(path, root):
    content = path.read_bytes()
    return bool(content) and path.write_bytes(content[: len(content) // 2]) >= 0


def flipped(path, root):
    return path.stat().st_size > 0 and flip(path, path.stat().st_size * 4 + 1)


def last_bit(path, root):
    return path.stat().st_size > 0 and flip(path, path.stat().st_size * 8 - 7)


def garbage(path, root):
    path.write_bytes(b"\xff\x00[]{}\n" * 20)


def array(path, root):
    path.write_bytes(b"[]")


def fieldless(path, root):
    path.write_bytes(b"{}\n")


def folder(path, root):
    path.unlink()
    path.mkdir()


def elsewhere(root):
    """What links name. Nothing is there, and nothing is written there."""
    return root.with_name("elsewhere")


def link(path, root):
    path.unlink()
    path.symlink_to(elsewhere(root))


def unreadable(path, root):
    """For root, whom no permission keeps away, a link to itself."""
    if os.geteuid():
        path.chmod(0)
    else:
        path.unlink()
        path.symlink_to(path)


def swapped(path, root):
    """With the neighbour of its kind, or any other file beside it."""
    name = path.relative_to(root).as_posix()
    others = [
        root / f for f in files(root) if f != name and (kind(f) == kind(name) or Path(f).parent == Path(name).parent)
    ]
    other = next((o for o in others if o.read_bytes() != path.read_bytes()), None)
    if other is None:
        return False
    aside = path.with_name("aside")
    os.rename(path, aside)
    os.rename(other, path)
    os.rename(aside, other)
    return True


DAMAGES = (delete, empty, half, flipped, last_bit, garbage, array, fieldless, folder, link, unreadable, swapped)
