"""Which system calls a program in a box may make, as a seccomp filter: a list of what is allowed, all else is refused.

The filter is a program of classic BPF (struct sock_filter of linux/filter.h) that the kernel runs before each call. It
sees the number and the arguments in registers, never memory, so nothing can be changed behind its back. Namespaces
keep the rest of the machine out of sight; the filter keeps most of the kernel out of reach: no sockets, keys, mounts,
tracing, BPF, io_uring, namespaces, nothing that keeps memory no limit counts (memfd, System V), nothing newer than it.
"""

from __future__ import annotations

import errno
import platform
import struct

ALLOWED = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
preadv2:327:286 pwritev2:328:287 open:2:- openat:257:56 close:3:57 close_range:436:436 dup:32:23 dup2:33:-
dup3:292:24 fcntl:72:25 flock:73:32 fsync:74:82 fdatasync:75:83 sync_file_range:277:84 lseek:8:62 sendfile:40:71
copy_file_range:326:285 fadvise64:221:223 stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291 access:21:-
faccessat:269:48 faccessat2:439:439 readlink:89:- readlinkat:267:78 getdents:78:- getdents64:217:61 getcwd:79:17
chdir:80:49 fchdir:81:50 statfs:137:43 fstatfs:138:44 umask:95:166 chmod:90:- fchmod:91:52 fchmodat:268:53
mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38 renameat2:316:276
link:86:- linkat:265:37 symlink:88:- symlinkat:266:36 truncate:76:45 ftruncate:77:46 fallocate:285:47
utimensat:280:88 utime:132:- utimes:235:- futimesat:261:- creat:85:- mmap:9:222 munmap:11:215 mprotect:10:226
mremap:25:216 brk:12:214 madvise:28:233 msync:26:227 mincore:27:232 membarrier:324:283 pkey_alloc:330:289
pkey_free:331:290 pkey_mprotect:329:288 fork:57:- vfork:58:- execve:59:221 exit:60:93 exit_group:231:94 wait4:61:260
waitid:247:95 getpid:39:172 getppid:110:173 gettid:186:178 getpgid:121:155 getpgrp:111:- setpgid:109:154
getsid:124:156 setsid:112:157 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148
getresgid:120:150 getgroups:115:158 kill:62:129 tkill:200:130 tgkill:234:131 pidfd_open:434:434
pidfd_send_signal:424:424 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigsuspend:130:133
rt_sigpending:127:136 rt_sigtimedwait:128:137 rt_sigqueueinfo:129:138 sigaltstack:131:132 pause:34:- alarm:37:-
setitimer:38:103 getitimer:36:102 nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113
clock_getres:229:114 gettimeofday:96:169 time:201:- times:100:153 restart_syscall:219:128 sched_yield:24:124
sched_getaffinity:204:123 sched_setaffinity:203:122 sched_getparam:143:121 sched_getscheduler:145:120
sched_get_priority_max:146:125 sched_get_priority_min:147:126 getpriority:140:141 getrlimit:97:163 setrlimit:160:164
prlimit64:302:261 getrusage:98:165 sysinfo:99:179 uname:63:160 getcpu:309:168 arch_prctl:158:-
set_tid_address:218:96 set_robust_list:273:99 get_robust_list:274:100 rseq:334:293 futex:202:98 futex_waitv:449:449
getrandom:318:278 sendto:44:206 recvfrom:45:207 sendmsg:46:211 recvmsg:47:212 shutdown:48:210 getsockname:51:204
getpeername:52:205 getsockopt:55:209 setsockopt:54:208 poll:7:- ppoll:271:73 select:23:- pselect6:270:72
epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22 eventfd:284:-
eventfd2:290:19 pipe:22:- pipe2:293:59 capget:125:90
"""
"""Calls that are allowed whatever their arguments: name, number on x86-64, number on ARM64."""

ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
"""What the kernel calls an architecture, and where its numbers stand in the table above."""
CONDITIONAL = {
    "x86_64": {"clone": 56, "ioctl": 16, "prctl": 157, "socketpair": 53},
    "aarch64": {"clone": 220, "ioctl": 29, "prctl": 167, "socketpair": 199},
}
"""Calls that are allowed with some arguments."""
NEWEST = 450
"""The highest number the list was made with. What is above it, and what programs have an older way for, does not
exist; what is below and not allowed is forbidden."""
WITH_OLDER_WAYS = {"clone3": 435, "openat2": 437, "epoll_pwait2": 441}

NAMESPACES = 0x7E020000  # CLONE_NEWNS … CLONE_NEWNET
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
PRCTLS = (15, 16)  # PR_SET_NAME, PR_GET_NAME
AF_UNIX = 1

LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # of struct seccomp_data: the low halves of the arguments


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known."""
    return platform.machine() in ARCHITECTURES


def seccomp_filter(machine: str) -> bytes:
    """The filter for an architecture, as an array of struct sock_filter."""
    token, column = ARCHITECTURES[machine]
    rows = [entry.split(":") for entry in ALLOWED.split()]
    allowed = sorted(int(row[column]) for row in rows if row[column] != "-")
    forbidden, missing = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
    conditional = CONDITIONAL[machine]

    program = [(LOAD, 0, 0, ARCHITECTURE), *unless(EQUAL, token, KILL), (LOAD, 0, 0, NUMBER)]
    program += when(ABOVE, NEWEST, missing)  # the numbers of x32 among them
    for number in WITH_OLDER_WAYS.values():
        program += when(EQUAL, number, missing)
    for number in allowed:
        program += when(EQUAL, number, ALLOW)
    program += block(conditional["clone"], FIRST, [*when(ANY_BIT, NAMESPACES, forbidden), (RETURN, 0, 0, ALLOW)])
    program += block(conditional["ioctl"], SECOND, one_of(IOCTLS, REFUSE | errno.ENOTTY))
    program += block(conditional["prctl"], FIRST, one_of(PRCTLS, forbidden))
    program += block(conditional["socketpair"], FIRST, one_of((AF_UNIX,), forbidden))
    program.append((RETURN, 0, 0, forbidden))
    return b"".join(struct.pack("=HBBI", *line) for line in program)


Line = tuple[int, int, int, int]
"""An instruction: what to do, lines to skip if so, lines to skip if not, and a constant."""


def when(test: int, constant: int, answer: int) -> list[Line]:
    """Answers if what was loaded passes a test."""
    return [(test, 0, 1, constant), (RETURN, 0, 0, answer)]


def unless(test: int, constant: int, answer: int) -> list[Line]:
    """Answers if what was loaded does not pass a test."""
    return [(test, 1, 0, constant), (RETURN, 0, 0, answer)]


def block(number: int, argument: int, lines: list[Line]) -> list[Line]:
    """For one call: loads an argument, and goes through lines that end with an answer."""
    return [(EQUAL, 0, len(lines) + 1, number), (LOAD, 0, 0, argument), *lines]


def one_of(constants: tuple[int, ...], otherwise: int) -> list[Line]:
    """Allows some values of what was loaded."""
    return [line for constant in constants for line in when(EQUAL, constant, ALLOW)] + [(RETURN, 0, 0, otherwise)]
