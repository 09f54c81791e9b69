"""Wraps a message in the line formats of real programs: syslog, log4j, JSON, klog, RAS and so on.

Knows a line's level words; knows nothing of templates or topics. Some formats print no level, so the level is no crutch.
"""
import json

from fill import MONTHS, camel, clock, cloc, date, hexs, host, ip, node, number, uuid, word

LEVELS_BAD = ["ERROR"] * 50 + ["WARN"] * 20 + ["FATAL"] * 5 + ["CRITICAL"] * 5 + ["INFO"] * 16 + ["DEBUG"] * 2 + ["NOTICE"] * 2
LEVELS_CALM = ["INFO"] * 70 + ["DEBUG"] * 15 + ["NOTICE"] * 6 + ["TRACE"] * 2 + ["WARN"] * 5 + ["ERROR"] * 2
SHORT = {"ERROR": "E", "WARN": "W", "FATAL": "F", "CRITICAL": "F", "INFO": "I", "DEBUG": "D", "NOTICE": "I", "TRACE": "V"}
NUMERIC = {"ERROR": 50, "WARN": 40, "FATAL": 60, "CRITICAL": 60, "INFO": 30, "DEBUG": 20, "NOTICE": 30, "TRACE": 10}
NET_SYSLOG = {"ERROR": 3, "WARN": 4, "FATAL": 1, "CRITICAL": 2, "INFO": 6, "DEBUG": 7, "NOTICE": 5, "TRACE": 7}
DOTNET = {"ERROR": "fail", "WARN": "warn", "FATAL": "crit", "CRITICAL": "crit", "INFO": "info", "DEBUG": "dbug", "NOTICE": "info", "TRACE": "trce"}


def bsd(r):
    return f"{r.choice(MONTHS)} {r.randint(1, 28):2d} {clock(r)}"


def stamp(r):
    return r.choice([f"{date(r)} {clock(r)},{r.randint(0, 999):03d}", f"{date(r)} {clock(r)}", f"{date(r)}T{clock(r)}.{r.randint(0, 999):03d}Z",
                     f"{date(r)}T{clock(r)}+0{r.randint(0, 9)}:00", f"{date(r)} {clock(r)}.{r.randint(0, 999999):06d}", f"[{clock(r)}]", f"{date(r)[2:].replace('-', '/')} {clock(r)}"])


def low(r, level):
    return {"WARN": r.choice(["warning", "warn"]), "CRITICAL": r.choice(["critical", "crit"])}.get(level, level.lower())


def up(r, level):
    return {"WARN": r.choice(["WARN", "WARNING"]), "ERROR": r.choice(["ERROR", "ERROR", "ERR", "SEVERE"])}.get(level, level)


def bare(r, m, l, p): return m, False
def level_colon(r, m, l, p): return r.choice([f"{up(r, l)}: {m}", f"[{up(r, l)}] {m}", f"{low(r, l)}: {m}", f"{up(r, l)} {m}", f"{p}: {up(r, l)}: {m}"]), True
def syslog(r, m, l, p): return f"{bsd(r)} {host(r)} {p}[{number(r, 2, 40000)}]: {m}", False
def syslog_iso(r, m, l, p): return f"{stamp(r)} {host(r)} {p}[{number(r, 2, 40000)}]: {m}", False
def syslog_pri(r, m, l, p): return f"<{r.randint(1, 20) * 8 + NET_SYSLOG[l]}>1 {date(r)}T{clock(r)}Z {host(r)} {p} {number(r, 2, 40000)} - - {m}", False
def proc_only(r, m, l, p): return r.choice([f"{p}: {m}", f"{p}[{number(r, 2, 40000)}]: {m}", f"[{p}] {m}"]), False
def log4j(r, m, l, p): return f"{stamp(r)} {up(r, l):5s} [{r.choice(['main', 'http-nio-8080-exec-' + str(r.randint(1, 90)), 'pool-' + str(r.randint(1, 9)) + '-thread-' + str(r.randint(1, 30)), word(r)])}] {r.choice(['com.', 'org.', 'c.e.', 'io.'])}{word(r)}.{camel(r)}{r.choice([' - ', ': ', ' : '])}{m}", True
def spring(r, m, l, p): return f"{stamp(r)}  {up(r, l)} {number(r, 1, 40000)} --- [{word(r)}-{r.randint(1, 30)}] o.s.{word(r)}.{camel(r)} : {m}", True
def pylog(r, m, l, p): return r.choice([f"{stamp(r)} - {p} - {up(r, l)} - {m}", f"{up(r, l)}:{p}:{m}", f"[{stamp(r)}] {up(r, l)} in {p}: {m}", f"[{stamp(r)}: {up(r, l)}/MainProcess] {m}", f"{stamp(r)} {up(r, l)} {p}:{r.randint(10, 900)} {m}"]), True
def plain_ts(r, m, l, p): return f"{stamp(r)} {m}", False
def ts_proc(r, m, l, p): return f"{stamp(r)} {p}: {m}", False


def js(r, m, l, p):
    level = r.choice([low(r, l), up(r, l), NUMERIC[l]])
    d = {r.choice(["ts", "time", "timestamp", "@timestamp"]): r.choice([stamp(r), 1700000000 + r.randint(0, 90000000)])}
    keep = r.random() < 0.85
    if keep:
        d[r.choice(["level", "severity", "lvl"])] = level
    d[r.choice(["logger", "service", "app", "component"])] = p
    d[r.choice(["msg", "message", "event"])] = m
    if r.random() < 0.5:
        d[r.choice(["trace_id", "request_id", "caller", "host", "user_id"])] = r.choice([uuid(r), hexs(r, 16), f"{word(r)}/{word(r)}.go:{r.randint(1, 900)}", host(r), number(r, 1, 90000)])
    items = list(d.items())
    if r.random() < 0.4:
        r.shuffle(items)
    return json.dumps(dict(items), separators=r.choice([(",", ":"), (", ", ": ")]), ensure_ascii=False), keep


def logfmt(r, m, l, p):
    q = m.replace('"', "'")
    return r.choice([f'time={date(r)}T{clock(r)}Z level={low(r, l)} msg="{q}" component={p}', f'level={low(r, l)} ts={date(r)}T{clock(r)}.{r.randint(0, 999):03d}Z caller={word(r)}.go:{r.randint(10, 900)} msg="{q}"',
                     f'ts={1700000000 + r.randint(0, 90000000)} lvl={low(r, l)} msg="{q}" {word(r)}={number(r, 1, 9000)}', f'msg="{q}" severity={low(r, l)} id={hexs(r, 12)}']), True


def klog(r, m, l, p): return f"{SHORT[l]}{r.randint(1, 12):02d}{r.randint(1, 28):02d} {clock(r)}.{r.randint(0, 999999):06d} {number(r, 1, 40000):7d} {word(r)}_{word(r)}.go:{r.randint(10, 900)}] {m}", True
def k8s_event(r, m, l, p): return f"{r.choice(['', str(r.randint(1, 59)) + 'm ago '])}{'Warning' if l in ('ERROR', 'WARN', 'FATAL', 'CRITICAL') else 'Normal'} {p} {m}", True
def docker(r, m, l, p): return f"{date(r)}T{clock(r)}.{r.randint(0, 999999999):09d}Z {r.choice(['stdout', 'stderr'])} F {m}", False
def compose(r, m, l, p): return f"{p}-{r.randint(1, 3)}  | {m}", False
def nginx(r, m, l, p): return f"{date(r).replace('-', '/')} {clock(r)} [{r.choice(['emerg', 'alert', 'crit', 'error', 'error', 'error']) if l in ('ERROR', 'FATAL', 'CRITICAL') else 'warn' if l == 'WARN' else 'notice' if l != 'DEBUG' else 'debug'}] {number(r, 1, 40000)}#{r.choice([0, number(r, 1, 40000)])}: *{number(r, 1, 90000)} {m}", True
def apache(r, m, l, p): return f"[{r.choice(['Mon', 'Tue', 'Wed', 'Thu', 'Fri'])} {bsd(r)}.{r.randint(0, 999999):06d} {r.randint(2015, 2026)}] [{r.choice(['core', 'ssl', 'proxy', 'mpm_event', 'authz_core', 'php'])}:{low(r, l)}] [pid {number(r, 2, 40000)}] {m}", True
def ras_line(r, m, l, p):
    sev = {"WARN": "WARNING", "CRITICAL": "FAILURE", "DEBUG": "INFO", "NOTICE": "INFO", "TRACE": "INFO"}.get(l, l)
    if l == "ERROR" and r.random() < 0.6:
        sev = "FATAL"
    fac = r.choice(["KERNEL", "KERNEL", "KERNEL", "APP", "MMCS", "LINKCARD", "DISCOVERY", "HARDWARE", "MONITOR"])
    loc = cloc(r)
    return r.choice([f"{loc} RAS {fac} {sev} {m}", f"RAS {fac} {sev} {m}", f"{1100000000 + r.randint(0, 90000000)} {date(r).replace('-', '.')} {loc} {date(r)}-{clock(r).replace(':', '.')}.{r.randint(0, 999999):06d} {loc} RAS {fac} {sev} {m}",
                     f"{loc} {fac} {sev}: {m}", f"{date(r)}-{clock(r).replace(':', '.')} {sev} {loc} {m}"]), True


def hpc_sys(r, m, l, p):
    n = node(r)
    return r.choice([f"{bsd(r)} {n} {p}[{number(r, 2, 40000)}]: {m}", f"{bsd(r)} {n}/{n} {p}: {m}", f"{1100000000 + r.randint(0, 90000000)} {date(r).replace('-', '.')} {n} {bsd(r)} {n}/{n} {p}[{number(r, 2, 40000)}]: {m}",
                     f"{n} {p}: {m}", f"{bsd(r)} src@{n} {p}: {m}"]), False


def dmesg(r, m, l, p): return r.choice([f"[{r.randint(0, 99999):5d}.{r.randint(0, 999999):06d}] {m}", f"{bsd(r)} {host(r)} kernel: {m}", f"{bsd(r)} {host(r)} kernel: [{r.randint(0, 99999):5d}.{r.randint(0, 999999):06d}] {m}", f"kernel: {m}", f"{bsd(r)} {node(r)} kernel: {m}"]), False
def cisco(r, m, l, p): return r.choice([f"{bsd(r)} {p} %{word(r).upper()}-{NET_SYSLOG[l]}-{word(r).upper()}: {m}", f"{bsd(r)} {p} : {m}", f"{p}: {m}", f"{date(r)}T{clock(r)}Z {p} {low(r, l)} {m}"]), False
def go_std(r, m, l, p): return r.choice([f"{date(r).replace('-', '/')} {clock(r)} {m}", f"{date(r).replace('-', '/')} {clock(r)} {p}: {m}", f"{date(r).replace('-', '/')} {clock(r)} {word(r)}.go:{r.randint(10, 900)}: {m}"]), False
def rust_env(r, m, l, p): return r.choice([f"[{date(r)}T{clock(r)}Z {up(r, l)} {p}::{word(r)}] {m}", f"{date(r)}T{clock(r)}.{r.randint(0, 999999):06d}Z {up(r, l):>5s} {p}::{word(r)}: {m} {word(r)}={number(r, 1, 9000)}"]), True
def dotnet(r, m, l, p): return r.choice([f"{DOTNET[l]}: {p}[{r.randint(0, 20)}] {m}", f"[{clock(r)} {({'ERROR': 'ERR', 'WARN': 'WRN', 'FATAL': 'FTL', 'CRITICAL': 'FTL', 'INFO': 'INF', 'DEBUG': 'DBG', 'NOTICE': 'INF', 'TRACE': 'VRB'})[l]}] {m}"]), True
def winlog(r, m, l, p): return r.choice([f"{'Error' if l in ('ERROR', 'FATAL', 'CRITICAL') else 'Warning' if l == 'WARN' else 'Information'},{date(r)} {clock(r)},{p},{r.randint(1, 9000)},None,\"{m}\"", f"{date(r)} {clock(r)}, {'Error' if l in ('ERROR', 'FATAL', 'CRITICAL') else 'Warning' if l == 'WARN' else 'Info'}  {p}  {m}"]), True
def logcat(r, m, l, p): return r.choice([f"{date(r)[5:]} {clock(r)}.{r.randint(0, 999):03d} {number(r, 100, 9000)} {number(r, 100, 9000)} {SHORT[l]} {p}: {m}", f"{SHORT[l]}/{p}({number(r, 100, 9000)}): {m}"]), True
def spark(r, m, l, p): return f"{date(r)[2:].replace('-', '/')} {clock(r)} {up(r, l)} {p}: {m}", True
def openstack(r, m, l, p): return f"{date(r)} {clock(r)}.{r.randint(0, 999):03d} {number(r, 100, 40000)} {up(r, l)} {word(r)}.{word(r)} [req-{uuid(r)} - - -] {m}", True
def pipes(r, m, l, p): return f"{date(r).replace('-', '')}-{clock(r)}:{r.randint(0, 999)}|{camel(r)}|{number(r, 1000, 90000000)}|{m}", False
def bracket_ip(r, m, l, p): return f"[{stamp(r)}] [{low(r, l)}] [client {ip(r)}] {m}", True


APP = [bare] * 6 + [level_colon] * 3 + [syslog, syslog_iso, syslog_pri, proc_only, proc_only, log4j, log4j, spring, pylog, pylog, plain_ts, plain_ts, ts_proc, js, js, js, logfmt, logfmt, klog, docker, compose, rust_env, go_std, openstack, pipes]
FAMILIES = {
    "app": APP, "raw": [bare] * 8 + [docker, compose, plain_ts, proc_only, level_colon],
    "nginxerr": [nginx] * 4 + [apache] * 2 + [bare, bracket_ip], "kern": [dmesg] * 6 + [bare] * 4 + [js, plain_ts, hpc_sys],
    "sys": [syslog] * 5 + [syslog_iso, syslog_pri, bare, bare, bare, proc_only, proc_only, hpc_sys, js], "net": [cisco] * 5 + [syslog, bare, bare, syslog_pri],
    "k8s": [klog, klog, js, logfmt, bare, bare, k8s_event, k8s_event, syslog, log4j], "java": [log4j] * 4 + [spring] * 2 + [bare] * 3 + [js, level_colon],
    "py": [pylog] * 4 + [bare] * 3 + [js, js, docker], "go": [go_std] * 2 + [klog, logfmt, js, bare, bare, bare, rust_env, compose], "dotnet": [dotnet] * 3 + [bare, bare, js, log4j],
    "win": [winlog] * 3 + [bare] * 2 + [js], "android": [logcat] * 4 + [bare] * 2 + [pipes], "spark": [spark] * 4 + [log4j] * 2 + [bare] * 2 + [hpc_sys],
    "ras": [ras_line] * 5 + [bare] * 5 + [proc_only], "hpcsys": [hpc_sys] * 6 + [syslog] * 2 + [bare] * 3 + [dmesg], "mined": APP + [bare] * 10,
}


def wrap(r, family, message, bad, proc, level=None):
    """(line, level or None): the level is None when the format does not print it."""
    f = r.choice(FAMILIES[family])
    level = level or r.choice(LEVELS_BAD if bad else LEVELS_CALM)
    line, shown = f(r, message, level, proc)
    return line, (level if shown else None)
