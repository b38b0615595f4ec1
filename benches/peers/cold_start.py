#!/usr/bin/env python3
"""CPU time of whole processes: cold_start.py RUNS COMMAND...

Starts COMMAND and a program that does nothing in turns, RUNS times each after one that is not counted, and prints the user
and system time of both in nanoseconds, one line a pair. The system's own account of each process is read (wait4)."""
import os
import sys


def cpu_time(command):
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    ])
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"cold_start: {' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


def main():
    runs, command = int(sys.argv[1]), sys.argv[2:]
    for run in range(runs + 1):
        pair = cpu_time(command), cpu_time(["true"])
        if run:
            print(*pair)


if __name__ == "__main__":
    main()
