#!/usr/bin/env python3
"""Mines the messages of logging calls, with their level, from pinned open-source packages.

    python3 mine.py --cache DIR         # fetch what is missing, extract, write mined.tsv.gz and SOURCES.md
    python3 mine.py --cache DIR --offline

Reads `mine_sources.tsv` (kind, name, version, licence). Kinds: `pypi` (pip), `crate` (cargo), `debian` (apt-get source).
Writes `mined.tsv.gz`: level, text, source; level is error, warning, info or debug; every placeholder of a text is `{}`.
Only the standard library is used. Knows nothing of models, labels or evaluation sets.
"""
import argparse
import ast
import collections
import fnmatch
import functools
import glob
import gzip
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
LEVELS = ("error", "warning", "info", "debug")
CAP_PER_SOURCE = 270
CAP_DEBUG = 50  # of them; debug lines are the easiest to come by and the least like what a person reads
EXTRACTION = 1  # raise it when the extraction changes: raw messages are kept in the cache
MAX_FILE_BYTES = 2_000_000
LEVEL_WORDS = {
    "emerg": "error", "emergency": "error", "alert": "error", "crit": "error", "critical": "error", "fatal": "error",
    "panic": "error", "err": "error", "error": "error", "severe": "error", "exception": "error", "errx": "error",
    "fatalx": "error", "perror": "error", "failure": "error", "dpanic": "error", "wtf": "error", "e": "error",
    "warn": "warning", "warning": "warning", "warnx": "warning", "w": "warning",
    "notice": "info", "info": "info", "information": "info", "note": "info", "i": "info", "config": "info",
    "debug": "debug", "dbg": "debug", "trace": "debug", "verbose": "debug", "noise": "debug", "fine": "debug",
    "finer": "debug", "finest": "debug", "d": "debug", "v": "debug", "blather": "debug", "spew": "debug",
}
LANGUAGES = {".py": "python", ".rs": "rust", ".go": "go", ".java": "java", ".c": "c", ".cc": "c", ".cpp": "c", ".cxx": "c", ".h": "c"}

# ---- licences -------------------------------------------------------------------------------------------------------

PERMISSIVE = re.compile(r"apache|\bASL\b|\bMIT\b|\bBSD|\bISC\b|PSF|Python Software|PostgreSQL|0BSD|Unlicense|CC0|Zlib|Expat|BSL-1|"
                        r"Boost|NTP|OpenLDAP|HPND|X11|NCSA|PIL|\bZPL|Zope|UPL|mpich|permissive|public.domain", re.I)
COPYLEFT = re.compile(r"GPL|General Public|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL|SSPL|BUSL|Business Source|Elastic|CC-BY-NC|Proprietary|"
                      r"Commercial|Other/Proprietary|non-?commercial|Artistic", re.I)
GPL_HEADER = re.compile(r"GNU\s+(?:Lesser |Library |Affero )?(?:\W+)?General Public|SPDX-License-Identifier:\s*\(?(?:A|L)?GPL", re.I)
DUAL_HEADER = re.compile(r"\bBSD\b|\bMIT\b|Apache|OpenIB", re.I)


def permissive(licence):
    """True if one alternative of the licence expression is wholly permissive."""
    for alternative in re.split(r"\s+OR\s+|/(?=[A-Z])|\|", licence or ""):
        if PERMISSIVE.search(alternative) and not COPYLEFT.search(alternative):
            return True
    return False


def metadata_licence(kind, text):
    """The licence a wheel's METADATA or a crate's Cargo.toml states, shortened to one line."""
    if kind == "crate":
        found = re.search(r'^license\s*=\s*"([^"]+)"', text, re.M)
        return found.group(1) if found else ""
    head = text.split("\n\n", 1)[0]
    found = re.search(r"^License-Expression: (.+)$", head, re.M)
    if found:
        return found.group(1).strip()
    classifiers = re.findall(r"^Classifier: License :: (?:OSI Approved :: )?(.+)$", head, re.M)
    if classifiers and classifiers != ["OSI Approved"]:
        return " AND ".join(c.strip() for c in classifiers)
    found = re.search(r"^License: (.+)$", head, re.M)
    return found.group(1).strip()[:80] if found else ""


def debian_rules(copyright_text):
    """(glob, licence name) pairs of a machine-readable debian/copyright, in file order; the last match decides."""
    rules = []
    for stanza in re.split(r"\n\s*\n", copyright_text):
        files = re.search(r"^Files:((?:.*\n?)(?:[ \t].*\n?)*)", stanza, re.M)
        licence = re.search(r"^License:[ \t]*(.*)", stanza, re.M)
        if files and licence:
            rules += [(pattern, licence.group(1)) for pattern in files.group(1).split()]
    return rules


def file_allowed(path, rules):
    verdict = True
    for pattern, licence in rules:
        if fnmatch.fnmatchcase(path, pattern):
            verdict = not COPYLEFT.search(licence) or bool(re.search(r"\bor\b", licence) and PERMISSIVE.search(licence))
    return verdict


# ---- fetching -------------------------------------------------------------------------------------------------------

def run(command, **options):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options).returncode == 0


def archives(cache, kind, name, version):
    """The archives of one source that are in the cache."""
    if kind == "pypi":
        plain = re.sub(r"[-_.]+", "_", name).lower()
        return [p for p in glob.glob(f"{cache}/pypi/*") if re.sub(r"[-_.]+", "_", os.path.basename(p)).lower().startswith(
            f"{plain}_{re.sub(r'[-_.]+', '_', version)}_")]
    if kind == "crate":
        return glob.glob(f"{cache}/ch/registry/cache/*/{name}-{version}.crate")
    upstream = re.sub(r"^\d+:", "", version)
    base, debian = upstream.rsplit("-", 1)[0], upstream
    found = glob.glob(f"{cache}/deb/{name}_{base}.orig*.tar.*") + glob.glob(f"{cache}/deb/{name}_{debian}.debian.tar.*")
    return [p for p in found if not p.endswith(".asc")]


def fetch(cache, kind, name, version):
    if kind == "pypi":
        platforms = ["any", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"]
        return run(["pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.13", "--implementation", "cp",
                    *[word for p in platforms for word in ("--platform", p)], "-d", f"{cache}/pypi", f"{name}=={version}"])
    if kind == "crate":  # `cargo info` downloads just the one crate into CARGO_HOME
        os.makedirs(f"{cache}/ch", exist_ok=True)
        return run(["cargo", "info", f"{name}@{version}"], env={**os.environ, "CARGO_HOME": f"{cache}/ch"}, cwd="/")
    return run(["apt-get", "-qq", *apt_options(cache), "source", "--only-source", "--download-only", f"{name}={version}"], cwd=f"{cache}/deb")


def apt_options(cache):
    """Options for a private apt state with this system's Debian mirror as a source-package archive."""
    root = f"{cache}/apt"
    options = ["-o", f"Dir::Etc::sourcelist={root}/sources.list", "-o", f"Dir::Etc::sourceparts={root}/parts",
               "-o", f"Dir::State::lists={root}/lists", "-o", "APT::Sandbox::User=root"]
    if not os.path.exists(f"{root}/parts"):
        for folder in (f"{root}/parts", f"{root}/lists/partial", f"{cache}/deb"):
            os.makedirs(folder, exist_ok=True)
        open(f"{root}/sources.list", "a").close()
        with open("/etc/apt/sources.list.d/debian.sources") as system, open(f"{root}/parts/debian.sources", "w") as private:
            private.write(re.sub(r"^Types:.*$", "Types: deb-src", system.read(), flags=re.M))
        run(["apt-get", "-qq", *options, "update"])
    return options


# ---- reading archives -----------------------------------------------------------------------------------------------

SKIP_PATH = re.compile(r"(?:^|/)(?:_?_?tests?_?_?|testing|unit_?tests?|functional|[\w-]*[-_]tests?|tests?[-_][\w-]*|testdata|testutils?|examples?|docs?|bench\w*|samples?|"
                       r"fixtures?|vendor|_vendor\w*|vendored|third_?party|3rd-?party|node_modules|contrib/tests|site-packages|deps|fuzz\w*|demos?)/"
                       r"|(?:^|/)(?:test_[^/]*|[^/]*_test\.(?:go|py|rs|cc|cpp|c)|[^/]*Tests?\.(?:java|cpp|c)|conftest\.py|tests?\.\w+)$|\.pb\.go$", re.I)


def members(path):
    """(name without the top folder, bytes) of the files of one archive that may matter."""
    def wanted(name, size):
        return size <= MAX_FILE_BYTES and (os.path.splitext(name)[1] in LANGUAGES or name.endswith(
            ("LocalStrings.properties", "debian/copyright", ".dist-info/METADATA", "/Cargo.toml")))
    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                if wanted(item.filename, item.file_size):
                    yield item.filename, archive.read(item)
        return
    with tarfile.open(path, "r|*") as archive:
        for item in archive:
            if item.isfile() and wanted(item.name, item.size):
                name = item.name if item.name.startswith("debian/") else item.name.split("/", 1)[-1]
                yield name, archive.extractfile(item).read()


# ---- Python ---------------------------------------------------------------------------------------------------------

LOGGER = re.compile(r"^(?!.*(?:dialog|catalog|backlog|changelog|blog|login|logic))\w*log", re.I)


def python_text(node, names=None):
    """The message an expression builds, or None; unknown parts become {}."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return python_text(node.left, names)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = python_text(node.left, names), python_text(node.right, names)
        return None if left is None and right is None else (left or "{}") + (right or "{}")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return python_text(node.func.value, names)
    if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "_", "_LE", "_LW", "_LI", "_LC", "gettext", "ugettext", "dedent", "BraceMessage"):
        return python_text(node.args[0], names)
    if isinstance(node, ast.Name) and names is not None:
        earlier = [(line, value) for line, value in names.get(node.id, ()) if line <= node.lineno]
        return python_text(max(earlier, key=lambda pair: pair[0])[1]) if earlier else None
    return None


PYTHON_HINT = re.compile(r"log\w*(?:\(.*\))?\s*\.\s*[a-z]+\(", re.I)


def python_calls(text):
    if not PYTHON_HINT.search(text):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    pending = [(tree, None)]
    while pending:
        scope, names = pending.pop()
        nodes, queue = [], list(ast.iter_child_nodes(scope))
        names = collections.defaultdict(list, names or {})
        while queue:  # the nodes of this scope alone; functions inside it wait as scopes of their own
            node = queue.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                pending.append((node, names))
                continue
            nodes.append(node)
            queue.extend(ast.iter_child_nodes(node))
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = names[node.targets[0].id] + [(node.lineno, node.value)]
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                found = python_message(node, names)
                if found:
                    yield found


def python_message(call, names):
    """(level, text) if the call is one of a logger's with a message that can be read."""
    receiver = call.func.value
    if isinstance(receiver, ast.Call):
        receiver = receiver.func
    owner = receiver.id if isinstance(receiver, ast.Name) else getattr(receiver, "attr", "")
    if not LOGGER.match(owner):
        return None
    level, args = call.func.attr, call.args
    if level == "log" and len(args) > 1:
        level, args = getattr(args[0], "attr", getattr(args[0], "id", "")).lower(), args[1:]
    if len(level) < 2 or level not in LEVEL_WORDS:
        return None
    text = python_text(args[0], names)
    return (LEVEL_WORDS[level], text) if text else None


# ---- Rust, Go, Java, C: literals and balanced parentheses ---------------------------------------------------------------

TOKEN = re.compile(r'r(#+)"(?:.|\n)*?"\1|r"[^"]*"|"(?:[^"\\\n]|\\(?:.|\n))*"|`[^`]*`|\'(?:[^\'\\\n]|\\.)[^\'\n]{0,6}\'|//[^\n]*|/\*(?:.|\n)*?\*/|[()\[\]{},]|(?:[^()\[\]{},"\'`/r]|r(?!#*"))+|.|\n')
ESCAPE = re.compile(r"\\(\n\s*|u\{?[0-9a-fA-F]+\}?|x[0-9a-fA-F]{2}|[0-7]{1,3}|.)")


def arguments(text, start):
    """The argument list, as token lists, of a call whose opening bracket is at `start`; [] if it does not close soon."""
    args, depth, position, end = [[]], 0, start, min(len(text), start + 6000)
    while position < end:
        match = TOKEN.match(text, position)
        token, position = match.group(0), match.end()
        if token.startswith(("//", "/*")):
            continue
        if token in "([{":
            depth += 1
            if depth == 1:
                continue
        elif token in ")]}":
            depth -= 1
            if depth == 0:
                return args
        elif token == "," and depth == 1:
            args.append([])
            continue
        args[-1].append(token)
    return []


def literal(token):
    if token[0] == "r" and token.endswith(('"', "#")):
        return token[1:].strip("#")[1:-1]
    if token[0] == "`":
        return token[1:-1]
    if token[0] == '"' and len(token) > 1:
        def plain(match):
            code = match.group(1)
            return "" if code[0] == "\n" or code[0] in "x01234567u" else {"n": " ", "t": " ", "r": " "}.get(code, code)
        return ESCAPE.sub(plain, token[1:-1])
    return None


WRAPPER = re.compile(r"(?:^|\W)(?:_|N_|gettext|String\.format|fmt\.Sprintf|MessageFormat\.format|errors?\.New|fmt\.Errorf|TEXT|T|L|F|format!|formatter|Sprintf|fmt::format)\s*$")


def message(tokens):
    """The text of one argument: its literals in order, {} for what stands between; None without a literal on top."""
    parts, depth, before, inside = [], 0, "", False
    for token in tokens:
        if token in "([{":
            depth += 1
            inside = inside or (depth == 1 and (not before.strip() or bool(WRAPPER.search(before))))
            if inside and WRAPPER.search(before) and parts and parts[-1] == "{}":
                parts.pop()
        elif token in ")]}":
            depth -= 1
            inside = inside and depth > 0
        elif token == "," and inside:
            break
        else:
            text = literal(token) if depth == 0 or (inside and depth == 1) else None
            if text is not None:
                parts.append(text)
                before = ""
                continue
            if token.strip(" \t\n+<&.;") and (not parts or parts[-1] != "{}") and (depth == 0 or inside):
                parts.append("{}")
        before = before + token if token not in "([{" else ""
    if not any(p != "{}" for p in parts):
        return None
    return "".join(parts)


def first_message(args):
    for tokens in args:
        text = message(tokens)
        if text is not None and len(text.split()) > 1:
            return text
    return None


RUST = re.compile(r"(?<![\w.])(?:\w+::)*(?:log_)?(trace|debug|info|warn|error|warning|critical|crit)!\s*[(\[{]")


def rust_calls(text):
    text = re.split(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:pub(?:\(crate\))? )?mod\b", text)[0]
    for match in RUST.finditer(text):
        args = arguments(text, match.end() - 1)
        plain = [a for a in args if "".join(a).strip().startswith(('"', 'r"', "r#", "concat!", "format!"))]
        found = first_message([[t for t in a if t.strip()] for a in plain])
        if found:
            yield LEVEL_WORDS[match.group(1)], found


def chain_before(text, end):
    """The receiver expression that ends at `end`, arguments blanked: log.WithField().  """
    position = end
    while position > 0 and end - position < 1500:
        char = text[position - 1]
        if char in ")]}":
            depth = 0
            while position > 0 and end - position < 1500:
                position -= 1
                depth += (text[position] in ")]}") - (text[position] in "([{")
                if depth == 0:
                    break
        elif char.isalnum() or char in "_.":
            position -= 1
        elif char in " \t\n" and re.search(r"\.\s*$", text[:position][-40:] + (text[position:position + 1] or "")) and text[position] == ".":
            position -= 1
        else:
            break
    return re.sub(r"\s+", "", text[position:end])


GO = re.compile(r"\.(Trace|Debug|Info|Notice|Warn|Warning|Error|Fatal|Panic|DPanic|Err|Crit|Log)(f|ln|S|w|Context|Ctx|Depth|x)?\(")
NOT_LOG = re.compile(r"^(?:fmt|errors?|t|b|tb|xerrors|status|require|assert|f|g|field)$")
JAVA = re.compile(r"\.(trace|debug|info|warn|warning|error|fatal|severe|fine|finer|finest|config|log|[ewidv]|wtf)\s*\(")


def go_calls(text):
    for match in GO.finditer(text):
        chain = chain_before(text, match.start())
        root = chain.split(".")[0].split("(")[0]
        if NOT_LOG.match(root):
            continue
        level = match.group(1).lower()
        if level == "log":
            kit = re.match(r"level\.(\w+)\(", chain)
            if not kit:
                continue
            level = kit.group(1).lower()
        elif not re.search(r"(?<!cata)(?<!dia)(?<!back)log|\blg\b|zap|sugar|\bl$", chain, re.I) and not (
                chain in ("s", "c", "srv", "js", "n", "mset", "o", "a", "fs", "r", "q") and match.group(2) == "f"):
            continue
        verbosity = re.search(r"\.V\((\d+)\)", text[max(0, match.start() - 8):match.start()])
        args = arguments(text, match.end() - 1)
        found = first_message(args[:3] if match.group(1) != "Log" else args)
        if found and level in LEVEL_WORDS:
            yield "debug" if verbosity and int(verbosity.group(1)) >= 4 else LEVEL_WORDS[level], found


def java_calls(text, strings):
    for match in JAVA.finditer(text):
        owner = re.sub(r"\(.*", "", chain_before(text, match.start())).split(".")[-1]
        if not LOGGER.match(owner):
            continue
        level, args = match.group(1), arguments(text, match.end() - 1)
        if level == "log" and args:
            level, args = "".join(args[0]).strip().split(".")[-1].lower(), args[1:]
        elif len(level) == 1 or level == "wtf":
            args = args[1:]
        if level not in LEVEL_WORDS or not args:
            continue
        key = re.search(r'\.getString\s*\(\s*"([\w.]+)"', "".join(args[0]))
        found = strings.get(key.group(1)) if key else first_message(args[:2])
        if found:
            yield LEVEL_WORDS[level], found


C_CALL = re.compile(r"\b([A-Za-z_]\w{2,40})\s*\(")
C_LEVEL_ARGUMENT = re.compile(r"^(?:[\w:]*(?:_|::))?(EMERG|ALERT|CRIT|CRITICAL|FATAL|PANIC|ERR|ERROR|WARN|WARNING|NOTICE|INFO|DEBUG|DBG|TRACE|VERBOSE)\d?$")
C_LOGGISH = re.compile(r"log|report|debug|dbg|msg|trace|print|printf|output|syslog", re.I)
C_SUFFIX = re.compile(r"(?:_(?:rl|once|if|f|fr|r|ctx|stream|named|limited|internal|v|printf|msg|log|at|to|safe|throttle))+$", re.I)
C_NOT = re.compile(r"^(?:\w+_f?r|if|for|while|switch|return|sizeof|defined|str\w+|s?n?printf|fprintf|static_assert|ASSERT\w*|assert\w*|throw\w*|raise\w*)$")
ANDROID = re.compile(r"^[A-Z]*LOG([EWIDV])(?:_IF)?$")
CAMEL = re.compile(r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|\d+")


@functools.lru_cache(maxsize=100_000)
def c_name_level(name):
    """The level a C function or macro carries in its own name, as in `ucs_error`, `VLOG_WARN_RL`, `ALOGE`, `LogError`."""
    android = ANDROID.match(name)
    if android:
        return LEVEL_WORDS[android.group(1).lower()]
    words = [w.lower() for w in CAMEL.split(C_SUFFIX.sub("", name)) if w]
    if words and len(words[-1]) > 1 and (len(words) < 4 or C_LOGGISH.search(name)):
        return LEVEL_WORDS.get(words[-1])
    return None


def c_calls(text):
    text = re.sub(r'%[-#0-9.*]*(?:l|ll|z)?"\s*(?:PRI|SCN|[A-Z]+_)\w*', '{}"', text)
    text = re.sub(r"APLOGNO\(\d*\)|\bSIZE_FORMAT\b", " ", text)
    for match in C_CALL.finditer(text):
        name = match.group(1)
        named = c_name_level(name)
        if C_NOT.match(name) or not (named or C_LOGGISH.search(name)):
            continue
        args = arguments(text, match.end() - 1)
        if len(args) == 1 and "".join(args[0]).strip().startswith("("):  # DEBUG ((DEBUG_ERROR, "..."))
            args = arguments("".join(args[0]).strip(), 0)
        level, given = named, None
        for index, tokens in enumerate(args[:4]):
            given = C_LEVEL_ARGUMENT.match("".join(tokens).strip())
            if given or (name in ("ereport", "elog") and "".join(tokens).strip() == "LOG"):
                level, args = LEVEL_WORDS[given.group(1).lower()] if given else "info", args[index + 1:]
                break
        if not level:
            continue
        if given and not args:  # LOG(ERROR) << "..." << x;
            stream = re.match(r"[^;]{0,200}?<<(?:[^;\"]|\"(?:[^\"\\]|\\.)*\")*;", text[match.end():])
            if not stream:
                continue
            tokens = [t.group(0) for t in TOKEN.finditer(stream.group(0)[stream.group(0).index("<<"):])]
            args = [tokens]
        elif name == "ereport":
            inner = re.search(r"errmsg\w*\s*\(", "".join(t for a in args for t in a + [","]))
            joined = "".join(t for a in args for t in a + [","])
            args = arguments(joined, inner.end() - 1)[:1] if inner else []
        found = first_message(args[:6])
        if found:
            yield level, found


# ---- cleaning -------------------------------------------------------------------------------------------------------

PRINTF = re.compile(r"%(?:\([\w.]+\)|\d+\$)?[-+ #0']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|z|j|t|L|I64)?(?:[diouxXeEfgGcrsapnmvTqUVb]|\{\w+\})")
NGINX = re.compile(r"%[0-9.*]*[ux]?[xX]?[A-Za-z]")
NOISE = re.compile(r"^(?:here\b|in function|in method|enter(?:ing|ed)?\b|leav(?:e|ing)\b|exiting function|exit(?:ing)? \{\}|>>+|<<+|={3,}|-{3,}|\*{3,}|#+|todo|fixme|xxx|"
                   r"debug:|test(?:ing)?\b|usage:|usage |options?:|got here|called\b|calling \{\}|hello|foo\b|bar\b|lorem|copyright|\{\}\(\) ?(?:called|enter|exit|start))|"
                   r"lorem ipsum|deprecat|should never (?:happen|get here)|not reached|please report this|unit test|tests? (?:passed|failed)|\bxxx\b|"
                   r"<[a-z_ ]+>.*<[a-z_ ]+>|\[<|^-{1,2}\w|\[options|\[--|\bman page\b|"
                   r"^(?:\S+ ){0,3}(?:called|entered|enter|entry|exit|begin|end)\b\W*(?:\(.*|with.*|\{\}.*)?$", re.I)
SQL_OR_HOST = re.compile(r"^(?:SELECT|INSERT|UPDATE|DELETE|AND|FROM|WHERE|CREATE|ALTER|DROP|LOCK|SET)\b [A-Z{]|https?://|pypi\.|crates\.io|npmjs|debian\.org")
BAD_NEWS = re.compile(r"^(?:\W|\{\}|\w+[:(]\)?)*\s*(?:fail(?:ed|ure|ing|s)?\b|errors?\b|cannot|can't|"
                      r"could ?n[o']t|unable|fatal|panic|exception|invalid|corrupt|abort|crash|out of memory)"
                      r"|(?<!if )(?<!that )(?<!no )(?<!not )\b(?:failed to|failed with|failed:|unable to|could not|couldn't|error (?:while|when|during|occurred))", re.I)
GOOD_NEWS = re.compile(r"\bsuccess(?:ful|fully)?\b|^(?:starting|started|loaded|listening|connected to|initiali[sz]ed|created|using)\b", re.I)
NEGATION = re.compile(r"\b(?:not|no|un\w+|fail\w*|error\w*|without|never|but|however|before|can't|cannot|n't|after|until|invalid|old|wrong)\b|n't", re.I)


def clean(source, level, raw):
    """The normalised text, or None if it is no message a person would meet in a log."""
    text = (NGINX if source == "nginx" else PRINTF).sub("{}", raw.replace("%%", "\x03"))
    text = text.replace("{{", "\x01").replace("}}", "\x02")
    text = re.sub(r"[#$%]?\$?\{[^{}]{0,80}\}", "{}", text)
    text = text.replace("\x01", "{").replace("\x02", "}").replace("\x03", "%")
    text = re.sub(r"\\033\[[0-9;]*m|\x1b\[[0-9;]*m|\[/?(?:bold|red|green|yellow|blue|dim)\]", "", text)
    text = re.sub(r"\s+", " ", re.sub(r"[\x00-\x1f\x7f\u200b]", " ", text)).strip()
    text = re.sub(r"(?:\{\}){2,}", "{}", re.sub(r"^\{\}(?=[A-Z][a-z])", "", text))
    if not 8 <= len(text) <= 300 or NOISE.search(text) or SQL_OR_HOST.search(text):
        return None
    bare = text.replace("{}", " ")
    words = [w for w in re.findall(r"(?<![\w/.$<-])[A-Za-z][A-Za-z']+(?![\w/$])", bare) if re.search(r"[aeiouyAEIOUY]", w)]
    real = [w for w in words if len(w) > 2 and (w.islower() or w.istitle() or w.isupper())]
    letters = sum(c.isalpha() for c in bare)
    dense = [c for c in bare if not c.isspace()]
    if len(real) < 2 or letters < 0.7 * len(dense) or text.count("{}") > len(words) + 1 or not text.isprintable():
        return None
    if sum(ord(c) > 127 for c in text) > 2 or sum(map(len, words)) < 0.5 * len(dense):
        return None
    if level in ("info", "debug") and BAD_NEWS.search(text):
        return None
    if level == "error" and GOOD_NEWS.search(text) and not NEGATION.search(text):
        return None
    return text


def key(text):
    return re.sub(r"[^a-z]+", " ", text.replace("{}", " ").lower()).strip()


# ---- one source, all sources ------------------------------------------------------------------------------------------

def calls(language, text, strings):
    return {"python": python_calls, "rust": rust_calls, "go": go_calls, "c": c_calls}[language](text) if language != "java" else java_calls(text, strings)


def properties(raw):
    joined = re.sub(r"\\\r?\n\s*", "", raw.decode("latin-1"))
    return {k: re.sub(r"\{\d+\}", "{}", v).replace("''", "'") for k, v in re.findall(r"^([\w.]+)=(.*)$", joined, re.M)}


def extract(job):
    """(job, licence, Counter of (level, raw message, language)) of one source; a reason in place of the counter if unusable."""
    cache, kind, name, version, licence = job
    found = archives(cache, kind, name, version)
    if not found:
        return job, licence, "not fetched"
    done = f"{cache}/raw/{kind}-{name}-{version}-{EXTRACTION}.json"
    if os.path.exists(done):
        with open(done) as stored:
            stated, pairs = json.load(stored)
        return job, stated, pairs and collections.Counter({tuple(k): n for k, n in pairs}) or "licence or no messages"
    texts, rules, strings, stated = [], [], {}, licence
    for path in found:
        for member, data in members(path):
            if member.endswith("LocalStrings.properties"):
                strings.update(properties(data))
            elif member == "debian/copyright":
                rules = debian_rules(data.decode("utf-8", "replace"))
            elif member.endswith(".dist-info/METADATA") or member == "Cargo.toml":
                stated = licence or metadata_licence(kind, data.decode("utf-8", "replace"))
            elif os.path.splitext(member)[1] in LANGUAGES and not SKIP_PATH.search(member):
                texts.append((member, data))
    counts = collections.Counter()
    for member, data in texts if permissive(stated) else ():
        text = data.decode("utf-8", "replace")
        if not file_allowed(member, rules) or (GPL_HEADER.search(text[:4000]) and not DUAL_HEADER.search(text[:4000])):
            continue
        language = LANGUAGES[os.path.splitext(member)[1]]
        counts.update((level, raw, language) for level, raw in calls(language, text, strings))
    os.makedirs(f"{cache}/raw", exist_ok=True)
    with open(done, "w") as stored:
        json.dump([stated, sorted((list(k), n) for k, n in counts.items())], stored)
    return job, stated, counts or "licence or no messages"


def merge(results):
    """Rows (level, text, source, language): one per distinct text, majority level, at most CAP_PER_SOURCE a source."""
    votes, shown = collections.defaultdict(collections.Counter), {}
    for (_, kind, name, _, _), _, counts in results:
        for level, raw, language in sorted(counts):
            text = clean(name, level, raw)
            if text:
                votes[key(text)][level] += 1
                shown.setdefault(key(text), (text, f"{kind}/{name}", language))
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for folded, tally in votes.items():
        ranked = tally.most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            text, name, language = shown[folded]
            rows[name][ranked[0][0]].append((hashlib.md5(text.encode()).hexdigest(), text, language))
    kept = []
    for name in rows:
        queues = {level: sorted(rows[name][level]) for level in LEVELS}
        queues["debug"] = queues["debug"][:CAP_DEBUG]
        picked = 0
        while picked < CAP_PER_SOURCE and any(queues.values()):  # levels take turns, so that rare ones survive the cap
            for level in LEVELS:
                if queues[level] and picked < CAP_PER_SOURCE:
                    _, text, language = queues[level].pop(0)
                    kept.append((level, text, name, language))
                    picked += 1
    return sorted(kept, key=lambda row: (row[2], row[0], row[1]))


def report(results, rows):
    """SOURCES.md: what was mined, from where, under which licence."""
    per_source = collections.Counter(row[2] for row in rows)
    lines = ["# Sources of `mined.tsv.gz`", "", "Written by `mine.py`; do not edit. Each line of the data names its source. "
             "Files whose own header or Debian copyright stanza states only a copyleft licence were skipped.", "",
             f"{len(rows)} texts from {len(per_source)} packages: " + ", ".join(
                 f"{n} {k}" for k, n in collections.Counter(r[0] for r in rows).most_common()) + "; " + ", ".join(
                 f"{n} {k}" for k, n in collections.Counter(r[3] for r in rows).most_common()) + ".", "",
             "| kind | package | version | licence | texts |", "|---|---|---|---|---|"]
    for (_, kind, name, version, _), licence, _ in sorted(results, key=lambda r: r[0][1:3]):
        if per_source[f"{kind}/{name}"]:
            short = re.sub(r"\s+", " ", licence.replace("|", "/"))[:60]
            lines.append(f"| {kind} | {name} | {version} | {short} | {per_source[f'{kind}/{name}']} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True, help="folder for downloaded archives, outside the repository")
    parser.add_argument("--offline", action="store_true", help="use only what the cache holds")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with open(f"{HERE}/mine_sources.tsv") as table:
        listed = [line.rstrip("\n").split("\t") for line in table if line.strip() and not line.startswith("#")]
    jobs = [(os.path.abspath(options.cache), *(row + [""] * 4)[:4]) for row in listed]
    for cache, kind, name, version, _ in jobs:
        if not options.offline and not archives(cache, kind, name, version) and not fetch(cache, kind, name, version):
            print(f"not to be had: {kind} {name} {version}", file=sys.stderr)
    with multiprocessing.Pool(options.jobs, maxtasksperchild=8) as pool:
        outcomes = pool.map(extract, jobs, chunksize=1)
    for (_, kind, name, version, _), licence, counts in outcomes:
        if isinstance(counts, str):
            print(f"skipped {kind} {name} {version}: {counts} {licence!r}", file=sys.stderr)
    results = [o for o in outcomes if not isinstance(o[2], str)]
    rows = merge(results)
    with open(f"{HERE}/mined.tsv.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0, filename="") as packed:
        packed.write("".join(f"{level}\t{text}\t{name}\n" for level, text, name, _ in rows).encode())
    with open(f"{HERE}/SOURCES.md", "w") as page:
        page.write(report(results, rows))


if __name__ == "__main__":
    main()
