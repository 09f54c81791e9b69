//! Prefixes of the formats that people have.

use proptest::prelude::*;

use super::*;

/// A line with its parts marked: `prefix ~ message`, the level and the source beside it.
fn check(marked: &str, level: &str, source: &str) {
    let (prefix, message) = marked.split_once("~").expect("it is marked");
    let line = format!("{prefix}{message}");
    let found = recognise(&line);
    let part = |range: &Option<Range<usize>>| range.clone().map_or("", |r| &line[r]).to_owned();
    assert_eq!(
        (&line[..found.len], part(&found.level).as_str(), part(&found.source).as_str()),
        (prefix, level, source),
        "{line}"
    );
}

#[test]
fn formats_of_loggers() {
    check("Dec 10 06:55:46 LabSZ sshd[24200]: ~reverse mapping", "", "sshd");
    check("Jun 14 15:16:01 combo sshd(pam_unix)[19939]: ~authentication failure; logname=", "", "sshd(pam_unix)");
    check("<34>Oct 11 22:14:15 mymachine su: ~'su root' failed", "", "su");
    check("<165>1 2003-10-11T22:14:15.003Z host.example.com evntslog - ID47 [x@3 iut=\"3\"] ~An event", "", "evntslog");
    check("2024-05-02T06:11:40.118+00:00 web1 kernel: [ 1234.567890] ~EXT4-fs error", "", "kernel");
    check("May 02 06:11:40 web1 systemd[1]: ~Started nginx.service.", "", "systemd");
    check("[Sun Dec 04 04:47:44 2005] [notice] ~workerEnv.init() ok", "notice", "");
    check("2024/03/11 08:14:52 [error] 2917#2917: *884120 ~upstream prematurely closed", "error", "");
    check("10.0.0.1 - alice [10/Oct/2000:13:55:36 -0700] ~\"GET / HTTP/1.1\" 500 12", "", "");
    check(
        "2015-10-18 18:01:47,978 INFO [main] org.apache.hadoop.MRAppMaster: ~Created",
        "INFO",
        "org.apache.hadoop.MRAppMaster",
    );
    check("12:00:01.123 [http-nio-1] WARN  c.e.Pool - ~No connection", "WARN", "c.e.Pool");
    check(
        "2015-07-29 17:41:44,747 - INFO  [Peer[myid=1]/0:0:2181:Fast@774] - ~Notification time out: 3200",
        "INFO",
        "",
    );
    check("2024-05-02T12:00:00.123Z  INFO 12345 --- [main] c.e.Foo : ~Started", "INFO", "c.e.Foo");
    check("2024-05-02 06:11:40,118 - root - ERROR - ~it broke", "ERROR", "root");
    check("[2024-05-02 06:00:00 +0000] [1] [INFO] ~Booting worker with pid: 2310", "INFO", "");
    check("17/06/09 20:10:40 INFO executor.Backend: ~Registered", "INFO", "executor.Backend");
    check(
        "081109 203615 148 INFO dfs.DataNode$PacketResponder: ~PacketResponder 1",
        "INFO",
        "dfs.DataNode$PacketResponder",
    );
    check("E0502 07:18:44.120 grpc_server.cc:512] ~RESOURCE_EXHAUSTED: no threads", "E", "");
    check("03-17 16:13:38.811  1702  2395 D WindowManager: ~printFreezing", "D", "WindowManager");
    check("1714633312.441 ~disk full", "", "");
    check("[    0.000000] ~Linux version 6.1", "", "");
    check("20171223-22:15:29:606|Step_LSC|30002312|~onStandStepChanged 3579", "", "Step_LSC");
    check("[10.30 16:49:06] chrome.exe - ~proxy:5070 open", "", "chrome.exe");
    check("2016-09-28 04:30:30, Info                  ~CBS    Loaded", "Info", "");
    check("123:M 12 Mar 2024 11:02:33.120 # ~Background saving error", "#", "");
    check("- 1117838570 2005.06.03 R02-M1:J12 2005-06-03-15.42.50.675872 R02-M1:J12 ~RAS KERNEL INFO parity", "", "");
    check(
        "api.log.1 2017-05-16 00:00:00.008 25746 INFO nova.wsgi.server [req-38 - -] ~10.11.10.1 GET",
        "INFO",
        "nova.wsgi.server",
    );
    check("2024-05-02T06:11:40.118Z ERROR ~checkout-api payment provider unreachable", "ERROR", "");
    check("2024-05-02T06:11:40.118Z error: ~x", "error", "");
    check("INFO 2024-07-03 17:46:12 scheduler: ~nightly", "INFO", "scheduler");
    check("kernel: [182331.114201] ~Out of memory: Killed", "", "kernel");
    check("[ 1.884120] ~EXT4-fs (vda1): mounted", "", "");
    check("I, [2024-06-01T10:22:14 #77] INFO -- : ~Completed 500", "INFO", "");
    check(
        "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond(pam_unix)[2915]: ~session",
        "",
        "crond(pam_unix)",
    );
    check("[2024-05-02 06:00:00 ERROR] ~broken", "ERROR", "");
}

#[test]
fn what_may_be_a_message_stays() {
    for line in [
        "",
        "ERROR: Database connection timeout after 30s",
        "INFO started",
        "500 Internal Server Error",
        "kernel panic - not syncing",
        "{\"level\":\"error\",\"ts\":1714633312.44}",
        "Exception in thread \"main\" java.lang.Error",
        "[drm] GPU hang",
        "2024-05-02 06:11:40",
        "10.0.0.1 said - no [maybe] yes",
    ] {
        assert_eq!(recognise(line), Prefix::default(), "{line}");
    }
    check("2024-05-02 06:11:40 ~500 Internal Server Error", "", "");
    check("2024-05-02 06:11:40 ~The error was not found", "", "");
    check("2024-05-02 06:11:40 ~disk sda1 failed", "", "");
}

/// Lines out of the pieces that prefixes are made of, so that odd orders come, too.
fn lines() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "2024-05-02T06:11:40.118Z",
        "Jun 14 15:16:01",
        "1714633312",
        "[",
        "]",
        "<",
        ">",
        "INFO",
        "error",
        " ",
        "  ",
        ":",
        "|",
        "-",
        " - ",
        "host",
        "sshd[12]:",
        "12",
        "#",
        "*",
        "E0502 07:18:44.1 a.cc:5] ",
        "é",
        "\u{0}",
        "message",
        "<34>1 ",
        "\"",
        "a.b.C",
    ]);
    prop_oneof![proptest::collection::vec(piece, 0..12).prop_map(|p| p.concat()), any::<String>()]
}

proptest! {
    #[test]
    fn any_line_is_a_prefix_and_a_message(line in lines()) {
        let found = recognise(&line);
        prop_assert!(line.is_char_boundary(found.len));
        prop_assert_eq!(format!("{}{}", &line[..found.len], &line[found.len..]), line.clone());
        prop_assert!(found.len == 0 || !line[found.len..].trim().is_empty());
        for range in [&found.level, &found.source].into_iter().flatten() {
            prop_assert!(range.end <= found.len && line.get(range.clone()).is_some_and(|part| !part.is_empty()));
        }
        prop_assert_eq!(recognise(&line), found);
    }
}
