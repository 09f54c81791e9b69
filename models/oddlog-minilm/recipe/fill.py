"""Fills the slots of a log template with plausible values.

A template holds alternatives `{a|b}` (nested once is enough) and slots such as `<ip>` or `<n:1-90>`.
Knows nothing of verdicts, topics or line formats.
"""
import re

WORDS = """account address alert archive asset audit avatar backlog badge balance banner basket batch beacon billing block bonus
booking branch bridge bucket budget bundle calendar campaign canary card carrier catalog channel chart checkout city client cloud
collector comment compiler contact content context contract counter country coupon courier credit currency cursor customer daemon
dashboard dataset depot device digest dispatch document domain download draft driver edge element email employee endpoint energy
engine entity episode export factory feature feed fetcher field filter firmware flight folder forecast forum frame funnel gallery
garden gauge gift grid group guest handler harbor heap helper history hotel hub image import index ingest inventory invoice item
journal kernel kiosk label layout ledger lesson letter library license limit listing location lock loyalty mailbox manifest map
market master media meeting member menu merchant message meter metric migration mirror mobile module monitor movie network news node
note notice object offer office option orchard order outlet packet page panel parcel partner passenger patient payment payroll phone
photo pipeline pixel planner player plugin pocket point policy pool portal post price printer probe product profile project promo
proxy publisher queue quota quote rating reader record recipe region registry relay report request reservation resource review rider
robot role route rule sample schedule schema score screen search sector segment sensor server session shard shelf shop signal site
sketch snapshot socket source spool stage station stock store stream student subscription summary survey switch symbol table tag
target task team temperature tenant terminal theme thread ticket tile timer token topic tour tracker trailer transfer tree trigger
trip tunnel unit update upload user vector vehicle vendor version video visit volume voucher wallet warehouse watcher weather
webhook widget window worker zone""".split()
USERS = """alice bob carol dave erin frank grace heidi ivan judy mallory nina oscar peggy rupert sybil trent victor walter admin deploy
jenkins backup www-data postgres svc-api oracle test ubuntu jsmith mchen kwilson anna.k tfischer ops root guest maria pablo yuki""".split()
HOSTW = """web app db cache api node worker build edge gw mail dns ldap mon store ceph kube vm host lb proxy auth login batch
compute gpu tor leaf backup nas ntp mx""".split()
SVCS = """payments orders checkout inventory auth-service user-service billing search gateway catalog shipping notifications
recommendations session-store mailer nginx postgres redis haproxy kafka rabbitmq prometheus grafana vault consul envoy mysqld httpd
cron-runner media-api ledger reporting profile-service cart image-resizer report-worker telemetry sshd java python3 node""".split()
TLDS = ["com", "org", "net", "io", "de", "co.uk", "internal", "local", "example.com", "dev"]
EXCS = """java.lang.NullPointerException java.io.IOException java.util.concurrent.TimeoutException java.sql.SQLException
java.lang.IllegalArgumentException RuntimeError ValueError TypeError KeyError OSError ConnectionResetError TimeoutError
org.springframework.dao.DataAccessException com.fasterxml.jackson.core.JsonParseException System.InvalidOperationException
System.Net.Http.HttpRequestException NoMethodError ActiveRecord::StatementInvalid ReferenceError RangeError IndexError AssertionError
javax.net.ssl.SSLHandshakeException java.nio.file.AccessDeniedException UnicodeDecodeError PermissionError""".split()
UAS = ["Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36", "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
       "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)", "curl/8.4.0", "okhttp/4.11.0", "Googlebot/2.1", "python-requests/2.31",
       "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_0) Safari/605.1.15", "-", "bingbot/2.0"]
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
LOCS = ["Europe/Berlin", "US/East", "UTC"]
ALT = re.compile(r"\{([^{}]*\|[^{}]*)\}")
SLOT = re.compile(r"<([a-z]+[0-9a-z]*)(?::(\d+)-(\d+))?>")


def hexs(r, n):
    return "".join(r.choice("0123456789abcdef") for _ in range(n))


def word(r):
    return r.choice(WORDS)


def ip(r):
    first = r.choice([10, 10, 172, 192, r.randint(11, 223)])
    return f"{first}.{r.randint(0, 254)}.{r.randint(0, 254)}.{r.randint(1, 254)}"


def host(r):
    k = r.random()
    name = f"{r.choice(HOSTW)}{r.choice(['', '-', '0', '-0'])}{r.randint(1, 99)}"
    if k < 0.25:
        name += "." + domain(r)
    elif k < 0.35:
        name = f"ip-10-{r.randint(0, 255)}-{r.randint(0, 255)}-{r.randint(0, 255)}"
    return name


def node(r):
    return r.choice([f"node{r.randint(1, 999):03d}", f"cn{r.randint(1, 999)}", f"nid{r.randint(1, 9999):05d}", f"c{r.randint(0, 9)}-{r.randint(0, 2)}c{r.randint(0, 2)}s{r.randint(0, 7)}n{r.randint(0, 3)}",
                     f"r{r.randint(1, 40)}i{r.randint(0, 3)}n{r.randint(0, 17)}", f"sn{r.randint(100, 900)}", f"dn{r.randint(100, 999)}", f"an{r.randint(100, 999)}", f"login{r.randint(1, 4)}"])


def cloc(r):
    return r.choice([f"R{r.randint(0, 71):02d}-M{r.randint(0, 1)}-N{r.choice('0123456789ABCDEF')}-C:J{r.randint(2, 17):02d}-U{r.choice(['01', '11'])}",
                     f"R{r.randint(0, 71):02d}-M{r.randint(0, 1)}-N{r.choice('0123456789ABCDEF')}", f"R{r.randint(0, 71):02d}-M{r.randint(0, 1)}-L{r.randint(0, 3)}",
                     f"R{r.randint(0, 71):02d}-M{r.randint(0, 1)}-N{r.randint(0, 9)}-I:J18-U{r.choice(['01', '11'])}", f"c{r.randint(0, 23)}-{r.randint(0, 9)}c{r.randint(0, 2)}s{r.randint(0, 15)}"])


def domain(r):
    return f"{r.choice([word(r), word(r) + word(r), word(r) + '-' + word(r)])}.{r.choice(TLDS)}"


def path(r):
    segs = [r.choice([word(r), word(r) + "s", "api", "v1", "v2", str(r.randint(1, 9999)), word(r) + "-" + word(r)]) for _ in range(r.randint(1, 4))]
    return "/".join(segs) + r.choice(["", "", "", "?page=" + str(r.randint(1, 40)), ".html", ".json", "?id=" + str(r.randint(1, 9999))])


def file(r):
    return r.choice(["/etc/", "/var/lib/", "/opt/app/", "/srv/", "./", "/usr/share/", "/data/", "C:\\ProgramData\\"]) + word(r) + r.choice(["/", "-", "_"]) + word(r) + r.choice([".conf", ".yaml", ".json", ".log", ".dat", ".db", ".toml", ".xml", ".bin", ".csv", ""])


def camel(r):
    return word(r).title() + r.choice(["Service", "Controller", "Manager", "Handler", "Repository", "Client", "Worker", "Listener", "Factory", "Activity", "Impl", word(r).title()])


def number(r, lo, hi):
    if hi - lo > 200:
        if lo == 0 and r.random() < 0.05:
            return 0
        lo1, hi1 = max(lo, 1), hi
        v = int(lo1 * (hi1 / lo1) ** r.random())
        return max(lo, min(hi, v))
    return r.randint(lo, hi)


def clock(r):
    return f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}:{r.randint(0, 59):02d}"


def date(r):
    return f"{r.randint(2004, 2031)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"


def clf(r):
    return f"{r.randint(1, 28):02d}/{r.choice(MONTHS)}/{r.randint(2015, 2027)}:{clock(r)} +0{r.randint(0, 9)}00"


def uuid(r):
    return "-".join(hexs(r, n) for n in (8, 4, 4, 4, 12))


VALUES = {
    "ip": ip, "host": host, "node": node, "cloc": cloc, "word": word, "path": path, "file": file, "class": camel, "domain": domain,
    "user": lambda r: r.choice(USERS), "svc": lambda r: r.choice(SVCS), "uuid": lambda r: uuid(r) if r.random() < 0.6 else hexs(r, r.choice([8, 12, 16, 24])),
    "port": lambda r: str(r.choice([80, 443, 3000, 5432, 6379, 8000, 8080, 8443, 9000, 9092, r.randint(1024, 65000)])),
    "pid": lambda r: str(number(r, 2, 65000)), "hash8": lambda r: hexs(r, 8), "hash10": lambda r: hexs(r, 10).upper(), "hash16": lambda r: hexs(r, 16),
    "addr": lambda r: "0x" + hexs(r, r.choice([8, 12, 16])), "mac": lambda r: ":".join(hexs(r, 2) for _ in range(6)),
    "email": lambda r: f"{r.choice(USERS)}@{domain(r)}", "url": lambda r: f"https://{domain(r)}/{path(r)}", "date": date, "time": clock, "clf": clf,
    "db": lambda r: word(r), "table": lambda r: r.choice([word(r) + "s", word(r) + "_" + word(r)]), "queue": lambda r: r.choice([word(r), word(r) + "." + word(r), word(r) + "-queue"]),
    "topic": lambda r: r.choice([word(r), word(r) + "." + word(r), word(r) + "-events"]), "job": lambda r: r.choice([str(number(r, 100, 900000)), f"{number(r, 100, 900000)}.{r.choice(['master', 'head1', 'pbs01'])}"]),
    "pod": lambda r: f"{r.choice(SVCS)}-{hexs(r, 9)}-{hexs(r, 5)}", "ns": lambda r: r.choice(["default", "prod", "staging", "kube-system", "monitoring", word(r)]),
    "image": lambda r: f"{r.choice(['registry.' + domain(r), 'ghcr.io/' + word(r), 'docker.io/library'])}/{r.choice(SVCS)}:{r.choice(['latest', 'v1.' + str(r.randint(0, 40)), hexs(r, 7)])}",
    "disk": lambda r: r.choice(["sda", "sdb", "sdc1", "nvme0n1", "vda", "dm-3", "sdaf", "xvdb"]), "iface": lambda r: r.choice(["eth0", "eth1", "ens3", "enp5s0f1", "bond0", "ib0", "wlan0", "eno2"]),
    "envvar": lambda r: f"{word(r).upper()}_{r.choice(['URL', 'KEY', 'SECRET', 'HOST', 'TOKEN', 'DSN'])}", "exc": lambda r: r.choice(EXCS), "ua": lambda r: r.choice(UAS),
}


def fill(r, template, proc="app"):
    """One random line of the template. Unknown slots stay as they are."""
    while True:
        template, n = ALT.subn(lambda m: r.choice(m.group(1).split("|")), template)
        if not n:
            break

    def value(m):
        name, lo, hi = m.groups()
        if name == "n":
            return str(number(r, int(lo or 1), int(hi or 99999)))
        if name == "proc":
            return proc
        return VALUES[name](r) if name in VALUES else m.group(0)

    return SLOT.sub(value, template)


def fill_braces(r, text):
    """A mined log statement with its `{}` placeholders filled."""
    def value(_):
        k = r.random()
        if k < 0.3:
            return str(number(r, 0, 9000))
        if k < 0.55:
            return word(r)
        name = r.choice(["ip", "host", "path", "file", "uuid", "class", "user", "svc", "addr", "time", "queue", "url"])
        return VALUES[name](r)
    return re.sub(r"\{\}", value, text)
