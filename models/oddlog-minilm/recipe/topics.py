"""The hypotheses a line is trained against: label synonyms, topic phrasings and sentence templates.

Knows nothing of lines or of the network. `SERVED` is the template and label pair the server uses by default.
"""
SERVED = ("This example is {}.", "anomaly", "normal")
TEMPLATES = ["This example is {}.", "This example is about {}.", "This log line is {}.", "This log message indicates {}.", "This is {}.", "The log shows {}.", "This text is about {}."]
PAIRS = [("anomaly", "normal"), ("an anomaly", "normal"), ("anomalous", "normal"), ("abnormal", "normal"), ("an error", "normal"), ("a failure", "success"),
         ("a problem", "routine"), ("a problem", "normal operation"), ("an error", "informational"), ("unhealthy", "healthy"), ("bad news", "good news"),
         ("an incident", "routine activity"), ("suspicious", "expected"), ("something wrong", "nothing unusual"), ("error", "info"), ("broken", "working"),
         ("a fault", "normal behaviour"), ("critical", "harmless"), ("odd", "ordinary"), ("unexpected", "expected"), ("failure", "normal"), ("an outage or error", "business as usual")]
TOPICS = {
    "sec": ["a security threat", "a security issue", "a security incident", "an attack", "security", "malicious activity", "an intrusion attempt", "a cyber attack", "a security problem", "suspicious activity", "a possible breach"],
    "auth": ["an authentication failure", "a login failure", "authentication", "a failed login", "an access problem", "denied access", "an authorization failure", "a permission problem", "a credentials problem", "an authentication problem"],
    "hw": ["a hardware failure", "a hardware problem", "broken hardware", "a hardware fault", "hardware", "a failing component", "a physical device failure", "a hardware error"],
    "net": ["a network problem", "a network failure", "a connectivity problem", "networking trouble", "a network issue", "a connection failure", "network", "a network error", "an unreachable host"],
    "perf": ["a performance problem", "slowness", "a latency problem", "a performance issue", "an overload", "performance degradation", "high latency", "something slow", "performance", "a timeout or slowdown"],
    "stor": ["a storage problem", "a disk problem", "a storage failure", "a file system problem", "storage", "a full or failing disk", "a disk failure", "a storage issue"],
    "conf": ["a configuration error", "a configuration problem", "a misconfiguration", "a wrong setting", "configuration", "bad configuration", "a configuration mistake"],
    "crash": ["a software crash", "a crash", "an application crash", "a software bug", "a program crash", "an unhandled exception", "a software failure", "a crashed process", "an application error"],
    "mem": ["a memory problem", "memory exhaustion", "running out of memory", "an out of memory condition", "a memory shortage", "a resource exhaustion"],
    "db": ["a database problem", "a database failure", "a database error", "database trouble", "a database issue"],
    "avail": ["an outage", "a service outage", "an unavailable service", "a service failure", "downtime", "a service that is down", "an availability problem"],
    "data": ["a data problem", "data corruption", "corrupt data", "lost data", "bad data", "a data integrity problem", "data loss"],
    "cert": ["a certificate problem", "a TLS problem", "an expired certificate", "a certificate error", "an encryption problem"],
    "queue": ["a message queue problem", "a messaging problem", "a broker problem", "a queue backlog"],
    "mail": ["a mail delivery problem", "an e-mail problem", "a mail problem", "a mail server problem"],
    "pay": ["a payment problem", "a billing problem", "a payment failure", "a failed payment", "money trouble"],
    "ci": ["a build failure", "a failed build", "a failing test", "a deployment problem", "a broken build"],
    "hpc_a": ["a failed job", "a job failure", "a cluster node problem", "a batch system problem", "a node failure"],
    "cost": ["a cost problem", "overspending", "a budget problem"],
    "normal": ["normal operation", "normal", "routine activity", "business as usual", "a routine event", "normal behaviour", "nothing wrong", "a healthy system", "regular operation", "an informational message", "normal activity"],
}
# Topics that can be true of the same line; a contrast between them would teach something false.
NEAR = {frozenset(p.split()) for p in """sec auth|hw stor|hw mem|hw hpc_a|hw avail|net avail|net cert|net mail|net perf|net queue|perf mem|perf db|perf queue|perf avail|stor data|stor mem|stor db
stor hpc_a|conf cert|conf crash|conf ci|conf avail|crash avail|crash mem|crash ci|crash data|crash hpc_a|db data|db avail|db queue|avail queue|avail pay|avail ci|avail mem|data pay|data queue|auth cert|sec data|sec cert|sec pay
avail hpc_a|net hpc_a|perf hpc_a|mem hpc_a|auth conf|auth mail|net db|crash hw|net hw|cost perf|crash db|data ci|stor avail|perf pay|hw perf|data mail|stor perf|auth avail""".replace("\n", "|").split("|")}
CONTRAST = [t for t in TOPICS if t not in ("normal", "cost")]
CALM_SUBJECT = {"hwok": "hw", "net": "net", "auth": "auth", "mail": "mail", "queue": "queue", "stor": "stor", "hpc": "hpc_a", "data_ok": "data"}


def verdict_pair(r, served_share=0.55):
    """(hypothesis of the anomaly, hypothesis of the normal)."""
    if r.random() < served_share:
        t, a, n = SERVED
    else:
        (a, n), t = r.choice(PAIRS), (TEMPLATES[0] if r.random() < 0.5 else r.choice(TEMPLATES))
    return t.format(a), t.format(n)


def choice(r, bad, topic, size=4):
    """(hypotheses, target distribution): the right topic first, then wrong ones; a topic that may also be true gets a share."""
    template = TEMPLATES[0] if r.random() < 0.55 else r.choice(TEMPLATES)
    right = topic if bad else "normal"
    pool = [t for t in CONTRAST if t != topic and t != CALM_SUBJECT.get(topic)]
    wrong = r.sample(pool, size - 1)
    if bad and r.random() < 0.3:
        wrong[0] = "normal"
    weight = [1.0] + [0.2 if bad and frozenset((topic, w)) in NEAR else 0.0 for w in wrong]
    return [template.format(r.choice(TOPICS[t])) for t in [right] + wrong], [w / sum(weight) for w in weight]
