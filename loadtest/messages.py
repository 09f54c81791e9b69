#!/usr/bin/env python3
"""The messages of LogHub's samples as one stream: each line without its date, host, level and component.

Usage: messages.py OUT FOLDER    (a folder with *_2k.log or *_2k.log.gz)

The systems' lines are interleaved at random, in order within each system, as a collector would see them. The layouts are
those of LogHub's own structured files. A line that does not have its system's layout is taken whole. The same files give
the same stream.
"""
import argparse
import gzip
import pathlib
import random
import re

LAYOUTS = {
    "Android": r"\S+ \S+ +\d+ +\d+ \S (?:[^:]*): ",
    "Apache": r"\[[^]]*\] \[[^]]*\] ",
    "BGL": r"\S+ \d+ \S+ \S+ \S+ \S+ \S+ \S+ \S+ ",
    "HDFS": r"\d+ \d+ \d+ \S+ [^:]*: ",
    "HPC": r"\d+ \S+ \S+ \S+ \d+ \d+ ",
    "Hadoop": r"\S+ \S+ \S+ \[[^]]*\] [^:]*: ",
    "HealthApp": r"[^|]*\|[^|]*\|[^|]*\|",
    "Linux": r"\S+ +\d+ \S+ \S+ [^:\[]*(?:\[\d+\])?: ",
    "Mac": r"\S+ +\d+ \S+ \S+ [^\[]*\[\d+\](?: \([^)]*\))?: ",
    "OpenSSH": r"\S+ +\d+ \S+ \S+ sshd\[\d+\]: ",
    "OpenStack": r"\S+ \S+ \S+ \d+ \S+ \S+ \[[^]]*\] ",
    "Proxifier": r"\[[^]]*\] \S+(?: \*64)? - ",
    "Spark": r"\S+ \S+ \S+ [^:]*: ",
    "Thunderbird": r"\S+ \d+ \S+ \S+ \S+ +\d+ \S+ \S+ [^:\[]*(?:\[\d+\])?: ",
    "Windows": r"\S+ \S+, \S+ +\S+ +",
    "Zookeeper": r"\S+ \S+ - \S+ +\[.*?@\d+\] - ",
}


def messages(path):
    layout = re.compile(LAYOUTS[path.name.split("_")[0]])
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", errors="replace") as file:
        lines = [line.rstrip("\r\n") for line in file]
    return [text for line in lines if (text := layout.sub("", line, count=1)).strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    streams = {path: messages(path) for path in sorted(args.folder.glob("*_2k.log*"))}
    turns = [path for path, lines in streams.items() for _ in lines]
    random.Random(7).shuffle(turns)
    rest = {path: iter(lines) for path, lines in streams.items()}
    stream = [next(rest[path]) for path in turns]
    pathlib.Path(args.out).write_text("".join(line + "\n" for line in stream))
    distinct = len(set(stream))
    print(f"{args.out}: {len(stream)} lines of {len(streams)} systems, {distinct} distinct ({distinct / len(stream):.1%})")


if __name__ == "__main__":
    main()
