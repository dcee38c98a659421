//! Blocks a stand-in `MyVNC` as an idle client does, lets the monitor heal it, and shows the log
//! as it grows. All in a temp dir and on loopback; `cargo run --release --example demo`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let programs = build();
    let demo = Demo::new(&programs);
    println!("A MyVNC server (a stand-in) runs at {}.", demo.url());
    let mut server = demo.spawn_server();
    demo.wait_for_answer();
    println!("An idle client connects and sends nothing: the server answers nobody any more.\n");
    let _idle = TcpStream::connect(demo.address()).expect("the server listens");
    let away = Instant::now();

    let mut monitor = demo.start_monitor(&programs);
    demo.show_log(&mut monitor);
    let status = monitor.wait().expect("the monitor can be waited for");
    server.wait().expect("the hung server has ended");
    demo.wait_for_answer();
    println!(
        "\nThe monitor ended with {status}; the server answers again and was away for {:.1} seconds.",
        away.elapsed().as_secs_f64()
    );
}

/// Builds the monitor and the stand-in as this example was built, and says where they are.
fn build() -> PathBuf {
    let programs = std::env::current_exe()
        .expect("/proc is mounted")
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/examples/demo")
        .to_owned();
    println!(
        "Building the monitor and the stand-in server; the first time this takes a minute or two."
    );
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--locked", "--bin", "monitor_myvnc"])
        .args(["--example", "stand_in"])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    if programs.ends_with("release") {
        build.arg("--release");
    }
    // `cargo run` describes this example in these variables. Build scripts, ring's for one, read them, so
    // that cargo would compile ring and everything above it once more.
    let about_us = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_NAME",
        "OUT_DIR",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if about_us.iter().any(|start| text.starts_with(start)) {
            build.env_remove(name);
        }
    }
    assert!(
        build.status().expect("cargo runs").success(),
        "the monitor does not build"
    );
    programs
}

struct Demo {
    directory: PathBuf,
    port: u16,
}

impl Demo {
    fn new(programs: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("loopback")
            .port();
        let directory =
            std::env::temp_dir().join(format!("monitor_myvnc-demo-{}", std::process::id()));
        fs::create_dir_all(directory.join("myvnc")).expect("a temp dir");
        std::os::unix::fs::symlink(
            programs.join("examples/stand_in"),
            directory.join("python3"),
        )
        .expect("a temp dir");
        fs::write(
            directory.join("myvnc/main.py"),
            format!("listen = 127.0.0.1:{port}\n"),
        )
        .expect("a temp dir");
        fs::write(directory.join("myvnc/manage.py"), "\n").expect("a temp dir");
        Self { directory, port }
    }

    fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn python(&self, script: &str) -> String {
        format!(
            "{} {}",
            self.directory.join("python3").display(),
            self.directory.join("myvnc").join(script).display()
        )
    }

    fn spawn_server(&self) -> Child {
        let script = self.directory.join("myvnc/main.py");
        let mut server = Command::new(self.directory.join("python3"));
        server
            .arg(script)
            .args(["--host", "127.0.0.1"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the stand-in runs")
    }

    fn start_monitor(&self, programs: &Path) -> Child {
        Command::new(programs.join("monitor_myvnc"))
            .args(["--url", &self.url(), "--timeout", "2", "--quiet"])
            .args([
                "--restart-cmd",
                &format!("{} start", self.python("manage.py")),
            ])
            // Only this demo's own server, whatever else runs on this machine.
            .args([
                "--process-pattern",
                &format!("^{}", self.python("main[.]py")),
            ])
            .arg("--logfile")
            .arg(self.directory.join("monitor.log"))
            .arg("--state-dir")
            .arg(self.directory.join("state"))
            .spawn()
            .expect("the monitor runs")
    }

    fn show_log(&self, monitor: &mut Child) {
        let path = self.directory.join("monitor.log");
        let mut lines = None;
        loop {
            let ended = monitor
                .try_wait()
                .expect("the monitor can be waited for")
                .is_some();
            lines = lines.or_else(|| File::open(&path).map(BufReader::new).ok());
            if let Some(lines) = &mut lines {
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    print!("{line}");
                    line.clear();
                }
            }
            if ended {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_answer(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.answers() {
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.starts_with("HTTP/1.0 200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let notes = fs::read_to_string(self.directory.join("notes")).unwrap_or_default();
        let directory = self.directory.as_os_str().as_encoded_bytes();
        for pid in notes
            .lines()
            .filter_map(|line| line.strip_prefix("server ")?.parse::<i32>().ok())
        {
            let is_ours = fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|argv| argv.windows(directory.len()).any(|part| part == directory));
            if is_ours {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
