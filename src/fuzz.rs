//! A small driver for fuzz targets on the stable toolchain. `MONITOR_FUZZ_SECONDS` says how long each
//! target runs (0.3 s by default); the same seeds give the same inputs.

#![allow(clippy::panic, reason = "it is for tests")]

use std::time::{Duration, Instant};

/// How long a target runs unless the environment says otherwise, in seconds.
const SECONDS: f64 = 0.3;
/// Inputs are cut there, in bytes.
const LONGEST: usize = 64 << 10;
/// The smaller of the two sizes whose times `linear` compares, in bytes.
const SMALL: usize = 32 << 10;
/// The larger one is so many times as large.
const TIMES: usize = 8;
/// Machines that do something else meanwhile make a measurement so many times too long.
const NOISE: u32 = 4;
/// The shortest of so many measurements counts.
const MEASUREMENTS: usize = 3;
/// What is not linear is not so in so many attempts.
const ATTEMPTS: usize = 3;
/// Times below this say nothing.
const NOTHING: Duration = Duration::from_millis(2);

/// Calls the target with mutations of the seeds until the time is over. A panic of the target fails
/// the test, and names the input.
pub(crate) fn fuzz(seeds: &[&[u8]], target: impl Fn(&[u8])) {
    let seconds = std::env::var("MONITOR_FUZZ_SECONDS");
    let seconds = seconds.ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs_f64(seconds.unwrap_or(SECONDS));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut corpus: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    corpus.push(Vec::new());
    let began = Instant::now();
    for seed in &corpus {
        run(seed, &target);
    }
    while began.elapsed() < limit {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &corpus, &mut random);
        }
        input.truncate(LONGEST);
        run(&input, &target);
        // Mutations of mutations reach further.
        if random.below(8) == 0 && input.len() < 4096 {
            if corpus.len() < 256 {
                corpus.push(input);
            } else {
                let at = seeds.len() + random.below(corpus.len() - seeds.len());
                corpus[at] = input;
            }
        }
    }
}

fn run(input: &[u8], target: &impl Fn(&[u8])) {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(input)));
    if let Err(panic) = ended {
        let shown = &input[..input.len().min(2000)];
        #[allow(clippy::print_stderr, reason = "the test says what it failed on")]
        {
            eprintln!(
                "input of {} bytes: \"{}\"",
                input.len(),
                shown.escape_ascii()
            );
        }
        std::panic::resume_unwind(panic);
    }
}

/// Checks that eight times the input takes at most about eight times as long.
pub(crate) fn linear(make: impl Fn(usize) -> Vec<u8>, target: impl Fn(&[u8])) {
    let shortest = |size: usize| {
        let input = make(size);
        let times = (0..MEASUREMENTS).map(|_| {
            let began = cpu_time();
            target(&input);
            cpu_time().saturating_sub(began)
        });
        times.min().unwrap_or_default()
    };
    let factor = u32::try_from(TIMES).unwrap_or(u32::MAX) * NOISE;
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let (small, large) = (shortest(SMALL), shortest(SMALL * TIMES));
        if large <= small.max(NOTHING) * factor {
            return;
        }
        seen.push((small, large));
    }
    panic!(
        "{SMALL} bytes and {TIMES} times as many take {seen:?}: {:?}…",
        String::from_utf8_lossy(&make(40))
    );
}

/// The CPU time of this thread (clock_gettime(2)): other processes do not make a target slower.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(8) {
        // Another bit.
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        // Another byte, at times one that parsers know.
        1 if at < input.len() => {
            let known = b"\0\n \t\"'=:;,/?&#@{}[]()-+.0\x7f\x80\xff";
            input[at] = known[random.below(known.len())];
        }
        // Cut off, at either end.
        2 => input.truncate(at),
        3 => drop(input.drain(..at)),
        // A part of another input.
        4 | 5 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1);
            input.splice(at..at, other[from..to].iter().copied());
        }
        // A part again, a few times or many.
        6 | 7 => {
            let length = 1 + random.below(16);
            let to = (at + length).min(input.len());
            let times = if random.below(8) == 0 {
                random.below(2048)
            } else {
                random.below(4)
            };
            let part = input[at..to].repeat(times);
            input.splice(at..at, part);
        }
        _ => input.push(u8::try_from(random.below(256)).unwrap_or_default()),
    }
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or_default()
    }
}

#[test]
fn inputs_that_fail_are_found_and_quadratic_time_too() {
    let fails =
        |work: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    assert!(fails(&|| fuzz(&[b"ab"], |input| assert!(input.len() < 50))));
    assert!(!fails(&|| fuzz(&[b"ab"], |_| ())));
    let quadratic = |input: &[u8]| {
        for end in 0..input.len() {
            for byte in &input[..end] {
                std::hint::black_box(byte);
            }
        }
    };
    let part = if cfg!(debug_assertions) { 32 } else { 4 };
    assert!(fails(&|| linear(|size| vec![b'x'; size / part], quadratic)));
    assert!(!fails(&|| linear(
        |size| vec![b'x'; size],
        |input| {
            assert!(std::hint::black_box(input).iter().all(|byte| *byte == b'x'));
        }
    )));
}
