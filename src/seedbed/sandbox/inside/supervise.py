"""The first process of a box: makes its folders, starts the program with nothing left to lose, and says how it ended.

This file is not imported: its text is what the first process runs, under the standard library alone. It is process 1
of its own process numbers, so that whatever the program leaves behind ends when it ends. What to do comes from one file
descriptor; what happened goes to another, which the program never has.
"""

import ctypes
import marshal
import os
import resource
import signal
import sys

NOSUID, NODEV, NOEXEC = 2, 4, 8
SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVS, CAPBSET_DROP = 4, 22, 38, 24
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    """Raises OSError if a call of the C library failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def prctl(option, value=0, pointer=None):
    check(libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl {option}")


def main():
    order_fd, report_fd = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report_fd, False)
    try:
        with open(order_fd, "rb") as file:
            order = marshal.load(file)
        prctl(SET_DUMPABLE, 0)  # where the program has the same user, it must not look into this process
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # process 1 gets only the signals that it handles
        folder, room = order["folder"].encode(), order["room"].encode()
        check(libc.mount(b"tmpfs", folder, b"tmpfs", ctypes.c_ulong(NOSUID | NODEV | NOEXEC), room), "mount")
        os.write(report_fd, b"began\n")
        child = os.fork()
        if child == 0:
            become(order)
    except BaseException as error:
        os.write(report_fd, f"unable {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    while True:
        ended, status, usage = os.wait3(0)
        if ended == child:
            break
    spent = usage.ru_utime + usage.ru_stime
    os.write(report_fd, f"ended {status} {spent:.3f} {usage.ru_maxrss * 1024}\n".encode())


def become(order):
    """The program instead of this process."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    capability = 0
    while libc.prctl(CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == 0:  # until there is no such capability
        capability += 1
    if order["uid"] is not None:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    check(libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()), "capset")
    os.chdir(order["folder"])
    os.umask(0o077)
    for name, content in order["files"].items():
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "xb") as file:
            file.write(content)
    for name, limit in order["rlimits"].items():
        resource.setrlimit(getattr(resource, name), limit)
    prctl(SET_NO_NEW_PRIVS, 1)
    install(order["filter"])
    os.execve(order["command"][0], order["command"], order["environment"])


def install(code):
    """The seccomp filter: struct sock_fprog holds the number of its lines and where they are."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))

    prctl(SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(code) // 8, code)))


if __name__ == "__main__":
    main()
