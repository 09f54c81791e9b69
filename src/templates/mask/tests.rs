//! What is masked and what stays, by example and for any text.

use proptest::prelude::*;

use super::*;

fn masked(message: &str) -> String {
    let mut out = "old".to_owned();
    mask(message, &mut out);
    out
}

#[test]
fn messages() {
    for (message, expected) in [
        ("PacketResponder 1 for block blk_-388 terminating", "PacketResponder <num> for block blk_<num> terminating"),
        ("took=14ms  size: 4KiB, 98 %", "took=<dur> size: <size>, <num> %"),
        ("user 'bob smith' can't log in", "user <str> can't log in"),
        ("Got exception from /10.251.71.193:50010:", "Got exception from <ip>:"),
        ("GET \"/a/b?c=1\" [1,024 bytes]", "GET <str> [<num> bytes]"),
        ("proxy.cse.hk:5070 close", "proxy.cse.hk:<num> close"),
        ("container_e01_123 on eth0 (q1w2e3r4)", "container_e<num>_<num> on eth<num> (<id>)"),
        ("open /var/log/x.log: no such file.", "open <path>: no such file."),
        ("é 5 ü", "é <num> ü"),
        ("delete blk_1 blk_-2 blk_3", "delete blk_<num>"),
        ("sets node-1 0x1fc <ok> node-2 0x1fd <ok>\tnode-9 0x1fe <ok> done", "sets node-<num> <hex> <ok> done"),
        ("\"GET /a HTTP/1.1\" 503 17 200 status=404.", "<str> <server-error> <num> status=<client-error>."),
        ("level=info msg=\"disk 7 is full\" took=9ms", "level=info msg=\" disk <num> is full\" took=<dur>"),
        (r#"msg="said \"hi bob\" twice" user="bob""#, "msg=\" said <str> twice\" user=<str>"),
        ("", ""),
    ] {
        assert_eq!(masked(message), expected, "{message}");
    }
}

#[test]
fn addresses_of_objects() {
    for (message, expected) in [
        ("GoogleSoftwareUpdateAgent[35861/0x7000002a0000]", "GoogleSoftwareUpdateAgent[<num>/<hex>]"),
        ("(stack @0x7fed806eb5d @0x7fefa1c8728 @0x1fe)", "(stack @<hex> @<hex>)"),
        ("stack @0x7fed806eb5d @0x7fefa1c8728 @0x1fe end", "stack @<hex> end"),
        ("range 0x7fff93c00000->0x7fff93e00000", "range <hex>-><hex>"),
        ("V:|-(45)-[NSScrollView:0X7F9D64ABE480]", "V:|-(<num>)-[NSScrollView:<hex>]"),
        ("do_read+0xfa/0x140 at libc.so.6+0x21b97", "do_read+<hex>/<hex> at libc.so.<num>+<hex>"),
        ("80x25 1920x1080 0x 0xg1 0x1fz é0x1", "<num>x<num> <num>x <num>xg<num> <num>x<num>fz é<hex>"),
        (
            "android.os.BinderProxy@2bd79ce KeyguardMonitor@712d093.",
            "android.os.BinderProxy@<hex> KeyguardMonitor@<hex>.",
        ),
        ("a.QuorumPeer$QuorumServer@33557fe4 from=g.c@8a2a501:", "a.QuorumPeer$QuorumServer@<hex> from=g.c@<hex>:"),
        ("x Event@1b2c3d4 Lambda$14/0x00000008@71209345", "x Event@<hex> Lambda$<num>/<hex>@<hex>"),
        ("node7@beef1:80 @71209345", "node<num>@<hex>:<num> @<hex>"),
        ("root2@example.com pkg@1.2.3 a1@b2.c3", "<email>"),
        (
            "user@host7 do@286: getty@tty1 x@deadbee 1@2016/9",
            "user@host<num> do@<num>: getty@tty<num> x@deadbee <num>@<num>/<num>",
        ),
        ("x@1234567890abcdef0", "x@<num>abcdef<num>"),
        ("Window{ca98d5 u0 com.x} Token{a64f992 Activity}", "Window{<hex> u<num> com.x} Token{<hex> Activity}"),
        ("ProcessRecord{6eaaf00 0:com/1} WorkSource{10057}", "ProcessRecord{<hex> <num>:com/<num>} WorkSource{<num>}"),
        (
            "commit 9600e20, 123456b and 123456d of e1000e sda1 x86_64 fed10 defaced deadbee ca98d5",
            "commit <hex>, <size> and <dur> of e<num>e sda<num> x<num>_<num> fed<num> defaced deadbee ca<num>d<num>",
        ),
    ] {
        assert_eq!(masked(message), expected, "{message}");
    }
}

#[test]
fn objects() {
    for (message, expected) in [
        (
            r#"{"level":"error","ts":1714633312.44,"msg":"disk failed","id":"01234567-89ab-cdef-0123-456789abcdef"}"#,
            r#"{"level": "error", "ts": <num>, "msg": "disk failed", "id": "<uuid>"}"#,
        ),
        (r#"{ "level" : "error" , "ok" :true }"#, r#"{ "level": "error" , "ok": true }"#),
        (
            r#"app: {"a":{"at":"2026-11-25T10:00:00Z","ip":"10.0.0.1:80"},"b":["x","y"],"n":[1,20,300]} took 3 ms"#,
            r#"app: {"a": {"at": "<time>", "ip": "<ip>"}, "b": [ "x", "y" ], "n": [ <num>, <num> ]} took <num> ms"#,
        ),
        (r"req {'user': 'al', 'n': 3} 'bob smith'", r#"req {"user": "al", "n": <num>} <str>"#),
        (r#"{"msg":"a } b { \" c","x":"y z"}"#, r#"{"msg": "a } b { \" c", "x": "y z"}"#),
        (r#"{"msg":"user \"bob smith\" can't log in 'now 1'"}"#, r#"{"msg": "user <str> can't log in <str>"}"#),
        (
            r#"{"log":"{\"level\":\"warn\",\"msg\":\"no \\\"x y\\\" 7\"}\n","stream":"stdout"}"#,
            r#"{"log": "{"level": "warn", "msg": "no <str> <num>"}", "stream": "stdout"}"#,
        ),
        (r#"{"log":"broke 7\n\tat deadbeef12\n"}"#, r#"{"log": "broke <num> at <hex>"}"#),
        (r#"{"dir":"C:\\new\\x","url":"http://a/b"}"#, r#"{"dir": "<path>", "url": "<url>"}"#),
        (r#"{"cut":"off in the midd"#, r#"{"cut": "off in the midd""#),
        (r#"  "level": "error","#, r#""level": "error","#),
        (r#""user 7": {"a": "b"}, "c": "d""#, r#""user <num>": {"a": "b"}, "c": "d""#),
        (r#"user "alice": "x" {"y"}"#, "user <str>: <str> {<str>}"),
    ] {
        assert_eq!(masked(message), expected, "{message}");
    }
}

proptest! {
    #[test]
    fn no_digit_is_left_and_blanks_are_single(message in any::<String>()) {
        let out = masked(&message);
        prop_assert!(!out.bytes().any(|b| b.is_ascii_digit()), "{out}");
        prop_assert!(!out.contains("  ") && out.trim_start_matches(' ') == out);
    }

    #[test]
    fn no_object_or_what_looks_like_one_breaks_it(
        pieces in proptest::collection::vec(r#"[{}\[\],:]|\\{0,4}["']|"k":|\\{1,3}[nt]|[a-z]{1,3}|[0-9]{1,3}| |é|\u{0}"#, 0..60),
    ) {
        let out = masked(&format!("{{{}", pieces.concat()));
        prop_assert!(!out.bytes().any(|b| b.is_ascii_digit()), "{out}");
        prop_assert!(!out.contains("  ") && out.trim_matches(' ') == out);
    }

    #[test]
    fn other_ids_in_an_object_give_the_same(a in 0u32..9_999_999, b in 0u32..9_999_999) {
        let text = |n: u32| format!(r#"{{"ts":{n}.5,"level":"info","took":"{n}ms","at":"10.0.0.{}","path":"/tmp/{n}","msg":"saw blk_{n}"}}"#, n % 256);
        prop_assert_eq!(masked(&text(a)), masked(&text(b)));
    }

    #[test]
    fn other_values_give_the_same(a in 0u32..9_999_999, b in 0u32..9_999_999, hex in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}") {
        let text = |n: u32| format!("took {n} ms on blk_{n} at 10.0.0.{}:{} id {hex} in /tmp/{n}", n % 256, n % 60000);
        prop_assert_eq!(masked(&text(a)), masked(&text(b)));
        prop_assert!(masked(&text(a)).contains("id <uuid> in <path>"));
    }

    #[test]
    fn other_addresses_give_the_same(
        a in [any::<u64>(), any::<u64>()],
        b in [any::<u64>(), any::<u64>()],
        hashes in ["[0-9a-f]{3,15}[0-9]", "[0-9a-f]{3,15}[0-9]"],
        lone in ["[a-f][0-9a-f]{5,30}[0-9]", "[a-f][0-9a-f]{5,30}[0-9]"],
        in_braces in ["[a-f][0-9a-f]{3,5}[0-9]", "[a-f][0-9a-f]{3,5}[0-9]"],
    ) {
        let text = |[m, n]: [u64; 2], i: usize| {
            let (hash, lone, in_braces) = (&hashes[i], &lone[i], &in_braces[i]);
            format!(
                "Agent[{m}/{n:#x}] (stack @{m:#x}) {m:#x}->{n:#X} f+{n:#x}/{m:#x} a.b.Proxy@{hash} [C@{hash}: \
                Token{{{lone} u0}} Window{{{in_braces} x}} commit {lone}"
            )
        };
        let expected = "Agent[<num>/<hex>] (stack @<hex>) <hex>-><hex> f+<hex>/<hex> a.b.Proxy@<hex> [C@<hex>: \
            Token{<hex> u<num>} Window{<hex> x} commit <hex>";
        prop_assert_eq!(masked(&text(a, 0)), expected);
        prop_assert_eq!(masked(&text(b, 1)), expected);
    }

    #[test]
    fn what_is_masked_stays_as_it_is(words in proptest::collection::vec("[a-z]{1,8}|[0-9]{1,9}|[0-9]{1,3}(ms|KB)|/[a-z]{1,5}|10\\.1\\.2\\.[0-9]{1,2}|([a-z]{1,2}[@{/+-]){0,2}(0x)?[0-9a-f]{1,9}", 0..8)) {
        let once = masked(&words.join(" "));
        prop_assert_eq!(masked(&once), once);
    }

    #[test]
    fn a_list_of_any_length_is_masked_alike(list in proptest::collection::vec(0u32..9_999_999, 1..20), n in 0u32..9_999_999) {
        let text = |list: &[u32]| {
            let all: Vec<String> = list.iter().map(|n| format!("blk_{n}")).collect();
            format!("asked for {} today", all.join(" "))
        };
        prop_assert_eq!(masked(&text(&list)), masked(&text(&[n])));
    }
}
