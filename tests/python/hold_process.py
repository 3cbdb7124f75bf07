"""Holds a process as a call in a driver would: no signal ends it, SIGKILL included, while this runs.

    hold_process.py PID

It traces every thread and lets none go on at its exit (ptrace). Prints a line once it holds them, and lets go at the end
of its standard input.
"""

import ctypes
import os
import sys

SEIZE = 0x4206
TRACE_EXIT = 0x40


def main(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    for thread in os.listdir(f"/proc/{pid}/task"):
        if libc.ptrace(SEIZE, int(thread), None, TRACE_EXIT) != 0:
            sys.exit(f"thread {thread} of {pid} cannot be traced: {os.strerror(ctypes.get_errno())}")
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
