"""C++20 by g++."""

from __future__ import annotations

from . import gcc
from .toolchains import Language, Toolchain

_FLAGS = ("-std=gnu++20", "-O2", "-static", "-no-pie", "-fno-pie", "-fno-lto", "-fmax-errors=5", "-w")
_MISSING = (
    "c++: no compiler; install g++ where the sandbox runs (Debian, Ubuntu: apt install g++; Fedora: dnf install "
    "gcc-c++ glibc-static libstdc++-static)"
)

_ATTACKS = r"""
extern "C" {
int open(const char *, int, ...); long write(int, const void *, unsigned long); long read(int, void *, unsigned long);
int fork(); int execve(const char *, char *const *, char *const *); int socket(int, int, int); int kill(int, int);
int chmod(const char *, unsigned); int memfd_create(const char *, unsigned); int close(int); char *getenv(const char *);
int execveat(int, const char *, char *const *, char *const *, int); int puts(const char *);
}
void must_fail(const char *name, long result) { if (result >= 0) puts(name); }
int main() {
    char *none[] = {nullptr}, back[3] = {};
    must_fail("fork", fork());
    must_fail("run a program", execve("/bin/true", none, none));
    must_fail("run itself again", execveat(4, "", none, none, 0x1100));
    must_fail("run itself again by /proc", execveat(4, "/proc/self/exe", none, none, 0x1100));
    must_fail("have a handle on itself", open("/proc/self/exe", 010000000));
    must_fail("report", write(3, "{}", 2));
    must_fail("open a socket", socket(1, 1, 0));
    must_fail("read /etc/passwd", open("/etc/passwd", 0));
    must_fail("read /proc/self/maps", open("/proc/self/maps", 0));
    must_fail("list /home", open("/home", 0200000));
    must_fail("write to the root", open("/self-test", 0101, 0600));
    must_fail("chmod", chmod(".", 0777));
    must_fail("signal everybody", kill(-1, 0));
    must_fail("memory file", memfd_create("x", 0));
    int file = open("probe", 0102, 0600);
    write(file, "42", 2), close(file), read(open("probe", 0), back, 2);
    puts(back);
}
"""


def _toolchain() -> Toolchain:
    return gcc.toolchain("c++", "g++", "main.cpp", _FLAGS, _MISSING)


CPP = Language(_toolchain, _ATTACKS)
