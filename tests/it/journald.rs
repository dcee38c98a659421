//! The systemd journal: each event is a record with fields, and a journal that takes nothing holds nobody.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::mount::MsFlags;

use crate::rig::Mounted;
use crate::rig::machine::{MYVNC, Machine, PORT, on_own_machine};

const SOCKET: &str = "/run/systemd/journal/socket";

/// A directory for journald's socket that no real journald has.
fn own_run() -> Mounted {
    let run = Mounted::tmpfs(Path::new("/run"), MsFlags::empty(), "");
    fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
    run
}

/// In the place of journald.
struct Journald(UnixDatagram);

impl Journald {
    fn new() -> Self {
        let socket = UnixDatagram::bind(SOCKET).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// The records since the last call.
    fn records(&self) -> Vec<BTreeMap<String, String>> {
        let mut records = Vec::new();
        let mut bytes = vec![0; 1 << 18];
        loop {
            match self.0.recv(&mut bytes) {
                // Whether anybody listens is asked so.
                Ok(0) => (),
                Ok(length) => records.push(fields(&bytes[..length])),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return records;
                }
            }
        }
    }
}

/// The fields of a record (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
fn fields(mut record: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while !record.is_empty() {
        let end = record.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &record[..end];
        record = &record[end + 1..];
        let (name, value) = if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            (&line[..at], &line[at + 1..])
        } else {
            let (length, rest) = record.split_first_chunk().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            record = &rest[length + 1..];
            (line, &rest[..length])
        };
        let twice = fields.insert(text(name), text(value));
        assert_eq!(twice, None, "{}", text(name));
    }
    fields
}

/// A known server that an idle client blocks.
fn blocked(machine: &Machine) -> (crate::rig::Process, std::net::TcpStream) {
    let server = machine.ours.start();
    machine.run_healthy();
    let client = machine.ours.idle_client();
    (server, client)
}

#[test]
fn each_event_is_a_record_with_its_cause() {
    on_own_machine(MYVNC, |machine| {
        let _run = own_run();
        let journald = Journald::new();
        let (_server, client) = blocked(machine);
        let mut monitor = machine.monitor();
        let ran = machine.run(monitor.args(["--journal", "--timeout", "1.5"]));
        machine.assert_healed(&ran);
        let records = journald.records();
        assert_eq!(records.len(), 1, "{records:?}");
        let record = &records[0];
        let culprit = client.local_addr().unwrap().to_string();
        for (name, value) in [
            ("MESSAGE_ID", "951d6ac25d8e46e3a621364d7616ba5c"),
            ("PRIORITY", "3"),
            ("SYSLOG_IDENTIFIER", "monitor_myvnc"),
            ("MYVNC_EVENT", "restarted"),
            ("MYVNC_SERVER", "m"),
            ("MYVNC_URL", &format!("http://127.0.0.1:{PORT}")),
            (
                "MYVNC_LOG",
                &machine.path("log/m.log").display().to_string(),
            ),
            ("MYVNC_CAUSE", "idle_client"),
            ("MYVNC_CULPRIT", &culprit),
        ] {
            assert_eq!(record[name], value, "{name}");
        }
        assert!(
            record["MESSAGE"].starts_with("m was restarted "),
            "{record:?}"
        );
        assert!(record["MESSAGE"].contains(&culprit), "{record:?}");
        let away: u64 = record["MYVNC_AWAY_USEC"].parse().unwrap();
        assert!((1..100).contains(&(away / 1_000_000)), "{away}");
        assert!(record["MYVNC_MEANING"].contains("this client has connected"));
        assert!(record["MYVNC_ADVICE"].starts_with("Find out who it is."));

        machine.ours.kill();
        let mut monitor = machine.monitor();
        monitor.args(["--journal", "--restart-cmd", "false"]);
        for expected in [1, 0] {
            assert_eq!(machine.run(&mut monitor).code(), Some(1));
            let records = journald.records();
            assert_eq!(records.len(), expected, "{records:?}");
            for record in records {
                assert_eq!(record["MYVNC_EVENT"], "failed");
                assert_eq!(record["MYVNC_CAUSE"], "not_running");
                assert!(!record.contains_key("MYVNC_CULPRIT"), "{record:?}");
            }
        }
        let _server = machine.ours.start();
        let ran = machine.run(machine.patient_monitor().arg("--journal"));
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        let records = journald.records();
        assert_eq!(records[0]["MYVNC_EVENT"], "recovered");
        // What is less severe, the timer's unit would not let through.
        assert_eq!(records[0]["PRIORITY"], "3");
        // Nothing happens, so nothing is written.
        machine.run(machine.patient_monitor().arg("--journal"));
        machine.run_healthy();
        assert_eq!(journald.records(), []);
    });
}

#[test]
fn without_the_option_nothing_is_written() {
    on_own_machine(MYVNC, |machine| {
        let _run = own_run();
        let journald = Journald::new();
        let (_server, _client) = blocked(machine);
        machine.assert_healed(&machine.run(&mut machine.monitor()));
        let mut bytes = [0; 16];
        let received = journald.0.recv(&mut bytes);
        assert_eq!(received.unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// What is where journald should be.
enum Place {
    Nothing,
    NobodyListens,
    /// Its reader does not read.
    Full,
}

fn is_healed_with(place: &Place) {
    on_own_machine(MYVNC, |machine| {
        let _run = own_run();
        let socket = match place {
            Place::Nothing => None,
            Place::NobodyListens => {
                drop(UnixDatagram::bind(SOCKET).unwrap());
                None
            }
            Place::Full => {
                let socket = UnixDatagram::bind(SOCKET).unwrap();
                let sender = UnixDatagram::unbound().unwrap();
                sender.set_nonblocking(true).unwrap();
                while sender.send_to(b"MESSAGE=x\n", SOCKET).is_ok() {}
                Some(socket)
            }
        };
        let (_server, _client) = blocked(machine);
        let began = std::time::Instant::now();
        let ran = machine.run(machine.monitor().arg("--journal"));
        machine.assert_healed(&ran);
        assert!(began.elapsed() < Duration::from_secs(20));
        // The event comes after the last line of the restart, and adds none.
        let last = ran.log.lines().last().unwrap();
        assert!(last.contains("Service was away"), "{ran:?}");
        assert_eq!(ran.run.stderr.lines().count(), 1, "{ran:?}");
        drop(socket);
    });
}

#[test]
fn no_journald_is_no_reason_to_say_so() {
    is_healed_with(&Place::Nothing);
}

#[test]
fn a_journald_that_is_gone_is_no_reason_to_say_so() {
    is_healed_with(&Place::NobodyListens);
}

#[test]
fn a_journald_that_does_not_read_holds_no_run() {
    is_healed_with(&Place::Full);
}
