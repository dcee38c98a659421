//! Every system call fails once.
//!
//! A recording lists, for each scene (`faults/scene.rs`), the system calls of the monitor's main thread, and those of its
//! children up to their `execve`. Then each of them fails once, in a run of its own, with each errno of the table
//! (`faults/errnos.rs`). The calls of the loader and of Rust's runtime before and after `main` are left out, and so are
//! tokio's eventfd and signal pipe. After each run
//!
//! - the run has ended within its limit, and nothing has panicked;
//! - both bystanders are alive: another MyVNC of the same user, and a look-alike of another user;
//! - the exit status is 0 only if the server answers;
//! - a server that was stopped was started, unless the errno leaves no way (an allocation that failed);
//! - a healthy server was not stopped, unless the errno is about the server (a refused connection);
//! - one more run restores service;
//! - the server never runs as another user than before.
//!
//! A fault meets exactly one call: in the pass over the children, the main thread's own call does not fail with them
//! (`faults/tracer.rs`). Calls that repeat themselves are left out in the children, and between scenes (`without_repeats`).
//!
//! `cargo test` runs a sample. `MONITOR_FAULTS` chooses: `all`, `list` to print the faults and inject none, or the faults whose
//! name contains each of some words (`MONITOR_FAULTS='hung clone EAGAIN'`). `MONITOR_FAULTS_WORKERS` is the number of
//! namespaces in which runs go on at the same time. The whole report is in `target/tmp/faults.txt`.
mod errnos;
mod scene;
mod tracer;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use crate::rig;
use scene::{Host, Scene, Verdict};
use tracer::{Call, Fault, Purpose};

/// What the test does in a namespace: `record`, or the number of a worker.
const ROLE: &str = "MONITOR_FAULTS_ROLE";
/// Where the plan and the results are.
const ROOM: &str = "MONITOR_FAULTS_ROOM";
/// Which faults are injected.
const CHOICE: &str = "MONITOR_FAULTS";
/// How many workers there are.
const WORKERS: &str = "MONITOR_FAULTS_WORKERS";
/// The number of faults in a sample, roughly.
const SAMPLE: usize = 360;
/// The number of violations of each kind that are printed; the report has all.
const SHOWN: usize = 12;

/// One line of the plan.
#[derive(Clone)]
struct Item {
    scene: Scene,
    fault: Fault,
}

impl Item {
    fn to_line(&self) -> String {
        let fault = &self.fault;
        let scene = Scene::ALL.iter().position(|one| *one == self.scene);
        format!(
            "{}\t{}\t{}\t{}\t{}\t{}\n",
            scene.unwrap(),
            fault.who,
            fault.number,
            fault.nth,
            fault.errno as i32,
            fault.about
        )
    }

    fn from_line(line: &str) -> Self {
        let fields: Vec<_> = line.splitn(6, '\t').collect();
        Self {
            scene: Scene::ALL[fields[0].parse::<usize>().unwrap()],
            fault: Fault {
                who: fields[1].parse().unwrap(),
                number: fields[2].parse().unwrap(),
                nth: fields[3].parse().unwrap(),
                errno: Errno::from_raw(fields[4].parse().unwrap()),
                about: fields[5].to_owned(),
            },
        }
    }

    /// As the report shows it.
    fn name(&self) -> String {
        let fault = &self.fault;
        let who = match fault.who {
            0 => "main".to_owned(),
            child => format!("child {child}"),
        };
        format!(
            "{} {who} {}({})#{} {:?}",
            self.scene.name(),
            errnos::name(fault.number),
            fault.about,
            fault.nth,
            fault.errno
        )
    }
}

#[test]
fn every_system_call_fails_once() {
    if rig::is_inside() {
        let room = std::env::var(ROOM).unwrap();
        match std::env::var(ROLE).unwrap().as_str() {
            "record" => record(Path::new(&room)),
            worker => work(Path::new(&room), worker),
        }
        return;
    }
    if !rig::is_root() {
        return rig::skip("only root can make namespaces with a network of their own");
    }
    let _alone = crate::alone();
    let began = Instant::now();
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    // The look-alike's user looks for its program here.
    fs::set_permissions(room, fs::Permissions::from_mode(0o755)).unwrap();
    start(room, "record").finish();
    let read = |name: &str| fs::read_to_string(room.join(name)).unwrap();
    let all = without_repeats(read("all").lines().map(Item::from_line).collect());
    if std::env::var(CHOICE).is_ok_and(|choice| choice == "list") {
        let list: String = all.iter().map(|item| item.name() + "\n").collect();
        let _ = std::io::stderr().write_all(list.as_bytes());
        return;
    }
    let chosen = choose(&all, &std::env::var(CHOICE).unwrap_or_default());
    let plan: String = chosen.iter().map(Item::to_line).collect();
    fs::write(room.join("plan"), plan).unwrap();
    let workers = std::env::var(WORKERS).map_or(6, |count| count.parse().unwrap());
    fs::write(room.join("workers"), workers.to_string()).unwrap();
    let running: Vec<_> = (0..workers)
        .map(|worker: usize| start(room, &worker.to_string()))
        .collect();
    running.into_iter().for_each(Worker::finish);
    let results: Vec<_> = (0..workers)
        .flat_map(|worker| {
            let lines = read(&format!("results-{worker}"));
            lines.lines().map(Outcome::from_line).collect::<Vec<_>>()
        })
        .collect();
    report(
        &chosen,
        all.len(),
        &read("baseline"),
        results,
        began.elapsed(),
    );
}

/// This test in a namespace of its own.
struct Worker {
    child: Child,
    log: PathBuf,
}

fn start(room: &Path, role: &str) -> Worker {
    let directory = room.join(format!("tmp-{role}"));
    fs::create_dir(&directory).unwrap();
    let path = room.join(format!("log-{role}"));
    let log = fs::File::create(&path).unwrap();
    let mut command = rig::in_private_network(&directory);
    command
        .env(ROLE, role)
        .env(ROOM, room)
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Worker {
        child: command.spawn().unwrap(),
        log: path,
    }
}

impl Worker {
    fn finish(mut self) {
        let status = self.child.wait().unwrap();
        let log = fs::read_to_string(self.log).unwrap();
        assert!(status.success(), "in a namespace: {status}\n{log}");
    }
}

/// Leaves out, in the children, calls that are much like others. A child reads the same about each process: of its
/// calls about objects of the same name, the first and the last stay. Of a scene that differs from another only in the
/// monitor's record, those stay that the other does not have; where the server is a user's, this is done for the main
/// thread too, with the calls about a path: of the others, the count does not say which they are.
fn without_repeats(items: Vec<Item>) -> Vec<Item> {
    let key = |item: &Item| {
        let fault = &item.fault;
        (fault.who, fault.number, fault.about.clone())
    };
    let mut last = HashMap::new();
    for item in &items {
        let last = last.entry((item.scene, key(item))).or_insert(0);
        *last = item.fault.nth.max(*last);
    }
    let counts = |item: &Item| {
        let (scene, fault) = (item.scene, &item.fault);
        let is_repeated = scene
            .twin()
            .is_some_and(|twin| last.get(&(twin, key(item))).copied() >= Some(fault.nth));
        let last = last[&(scene, key(item))];
        if fault.who == 0 {
            return !(is_repeated && scene.is_users() && fault.about.contains('/'));
        }
        !is_repeated && (fault.nth == 1 || fault.nth == last)
    };
    let counted: Vec<_> = items.iter().map(counts).collect();
    let mut counted = counted.into_iter();
    let mut items = items;
    items.retain(|_| counted.next() == Some(true));
    items
}

fn as_u64(number: usize) -> u64 {
    number.try_into().unwrap()
}

/// All faults, those whose name contains each of these words, or a sample: chosen by a hash of the name, so it stays the
/// same where a recording has a call more or less.
fn choose(all: &[Item], choice: &str) -> Vec<Item> {
    match choice {
        "all" => all.to_vec(),
        "" | "sample" => {
            let most = u64::MAX / as_u64(all.len().max(SAMPLE)) * as_u64(SAMPLE);
            let is_chosen = |item: &&Item| {
                let mut hasher = DefaultHasher::new();
                item.name().hash(&mut hasher);
                hasher.finish() <= most
            };
            all.iter().filter(is_chosen).cloned().collect()
        }
        words => {
            let fits = |item: &&Item| words.split(' ').all(|word| item.name().contains(word));
            all.iter().filter(fits).cloned().collect()
        }
    }
}

/// Lists what can fail in each scene, and what is wrong without any fault.
fn record(room: &Path) {
    let mut host = Host::new();
    let mut plan = String::new();
    let mut baseline = String::new();
    let mut unknown = BTreeMap::new();
    for scene in Scene::ALL {
        let Verdict {
            calls,
            problems,
            log,
            end,
            ..
        } = host.run(scene, Purpose::Record(Vec::new()), true);
        for problem in problems {
            writeln!(baseline, "{}\t{problem}\t{end}; {log}", scene.name()).unwrap();
        }
        for call in programs_own(calls) {
            match call.known {
                Err(number) => {
                    unknown.insert(number, call.arguments);
                }
                Ok(known) => {
                    for errno in known.errnos {
                        let item = Item {
                            scene,
                            fault: Fault {
                                who: call.who,
                                number: call.number,
                                nth: call.nth,
                                about: known.about.clone(),
                                errno: *errno,
                            },
                        };
                        plan.push_str(&item.to_line());
                    }
                }
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "system calls that tests/alone/faults/errnos.rs lacks, by number; give their errnos: {unknown:?}"
    );
    fs::write(room.join("all"), plan).unwrap();
    fs::write(room.join("baseline"), baseline).unwrap();
}

/// Without the calls of the loader, and of the runtime before and after the program's own part of a thread: it sets up
/// a signal stack first and takes it down last. A child that was forked does neither.
fn programs_own(calls: Vec<Call>) -> Vec<Call> {
    let is_signal_stack =
        |call: &Call| call.number == libc::SYS_sigaltstack && call.arguments[0] != 0;
    let mut stacks: HashMap<_, usize> = HashMap::new();
    for call in calls.iter().filter(|call| is_signal_stack(call)) {
        *stacks.entry(call.who).or_default() += 1;
    }
    assert!(
        stacks.contains_key(&0),
        "the runtime sets up a signal stack"
    );
    let mut seen: HashMap<_, usize> = HashMap::new();
    calls
        .into_iter()
        .filter(|call| {
            let seen = seen.entry(call.who).or_default();
            *seen += usize::from(is_signal_stack(call));
            !stacks.contains_key(&call.who) || (*seen == 1 && !is_signal_stack(call))
        })
        .collect()
}

/// Injects each fault of the plan that is this worker's.
fn work(room: &Path, worker: &str) {
    let number: usize = worker.parse().unwrap();
    let workers: usize = fs::read_to_string(room.join("workers"))
        .unwrap()
        .parse()
        .unwrap();
    let plan = fs::read_to_string(room.join("plan")).unwrap();
    let mut results = fs::File::create(room.join(format!("results-{worker}"))).unwrap();
    let mut host = Host::new();
    for (at, line) in plan.lines().enumerate() {
        if at % workers != number {
            continue;
        }
        let item = Item::from_line(line);
        let with_children = item.fault.who != 0;
        let verdict = host.run(item.scene, Purpose::Fail(item.fault), with_children);
        let line = Outcome { at, verdict }.to_line();
        results.write_all(line.as_bytes()).unwrap();
    }
}

/// What became of one line of the plan.
struct Outcome {
    at: usize,
    verdict: Verdict,
}

impl Outcome {
    fn to_line(&self) -> String {
        let it = &self.verdict;
        format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            self.at,
            u8::from(it.has_failed),
            u8::from(it.is_restored),
            it.took.as_millis(),
            it.end,
            it.problems.join("|"),
            it.log
        )
    }

    fn from_line(line: &str) -> Self {
        let fields: Vec<_> = line.splitn(7, '\t').collect();
        let problems = fields[5].split('|').filter(|problem| !problem.is_empty());
        Self {
            at: fields[0].parse().unwrap(),
            verdict: Verdict {
                has_failed: fields[1] == "1",
                is_restored: fields[2] == "1",
                took: Duration::from_millis(fields[3].parse().unwrap()),
                end: fields[4].to_owned(),
                problems: problems.map(str::to_owned).collect(),
                log: fields[6].to_owned(),
                calls: Vec::new(),
            },
        }
    }
}

/// Violations, by kind.
type Kinds = BTreeMap<String, Vec<String>>;

fn list(kinds: &Kinds, shown: usize) -> String {
    let mut list = String::new();
    for (kind, ones) in kinds {
        writeln!(list, "\n{kind} ({})", ones.len()).unwrap();
        for one in ones.iter().take(shown) {
            writeln!(list, "  {one}").unwrap();
        }
        if ones.len() > shown {
            writeln!(list, "  and {} more", ones.len() - shown).unwrap();
        }
    }
    list
}

/// Prints the numbers and the violations, and fails if there are any.
fn report(plan: &[Item], all: usize, baseline: &str, mut results: Vec<Outcome>, took: Duration) {
    results.sort_by_key(|outcome| outcome.at);
    assert_eq!(results.len(), plan.len(), "each fault has a result");
    let mut kinds = Kinds::new();
    let mut without_fault = Vec::new();
    for line in baseline.lines() {
        let [scene, problem, text] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        without_fault.push((scene, problem));
        let kind = format!("without any fault: {problem}");
        kinds
            .entry(kind)
            .or_default()
            .push(format!("{scene}: {text}"));
    }
    let (mut injected, mut survived) = (0, 0);
    let (mut slowest, mut later, mut not_reached) = (Vec::new(), Vec::new(), Vec::new());
    for Outcome { at, verdict } in &results {
        let item = &plan[*at];
        let text = format!("{}: {}; {}", item.name(), verdict.end, verdict.log);
        // What is wrong without a fault too was reported above.
        let is_new = |problem: &&String| {
            let problem = problem.trim_start_matches("one more run: ");
            !without_fault.contains(&(item.scene.name(), problem))
        };
        let problems: Vec<_> = verdict.problems.iter().filter(is_new).collect();
        for problem in &problems {
            kinds
                .entry((*problem).clone())
                .or_default()
                .push(text.clone());
        }
        if verdict.has_failed {
            injected += 1;
            if problems.is_empty() {
                survived += 1;
                if !verdict.is_restored {
                    later.push(text);
                }
            }
        } else {
            not_reached.push(text);
        }
        slowest.push((verdict.took, item.name()));
    }
    slowest.sort();
    let mut summary = format!(
        "faults: {injected} injected, {survived} survived ({} of them restored by the run after); {} of {all} chosen, \
         {} not reached, {} s",
        later.len(),
        plan.len(),
        not_reached.len(),
        took.as_secs()
    );
    for (took, name) in slowest.iter().rev().take(3) {
        write!(summary, "\n  slowest: {:.1} s: {name}", took.as_secs_f64()).unwrap();
    }
    // A run differs from the recording in how often it polls: by 5 % next to a running compiler.
    if not_reached.len() * 10 > plan.len() {
        let kind = "more than 10 % of the calls were not reached".to_owned();
        kinds.insert(kind, not_reached.clone());
    }
    let remarks = Kinds::from([
        ("restored only by the run after".to_owned(), later),
        ("not reached".to_owned(), not_reached),
    ]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.txt");
    let everything = [list(&kinds, usize::MAX), list(&remarks, usize::MAX)].concat();
    fs::write(&path, format!("{summary}\n{everything}")).unwrap();
    // Straight to stderr: what goes through `println!` is hidden when a test passes.
    let _ = writeln!(std::io::stderr(), "{summary}");
    assert!(
        kinds.is_empty(),
        "{}\nthe whole report: {}",
        list(&kinds, SHOWN),
        path.display()
    );
}
