//! What is wrong with the machine, and not with the server: memory and load (`proc(5)`).

use std::str::FromStr;

use nix::unistd::{SysconfVar, sysconf};

use super::evidence::{Machine, Pressure};

/// Looks at the machine.
pub(super) fn look() -> Machine {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let (memory, load) = (read("meminfo"), read("loadavg"));
    let kibibytes = |name: &str| number_after::<u64>(&memory, name).unwrap_or_default();
    let pressure =
        |name: &str, what: &str| number_after::<f32>(&read(&format!("pressure/{name}")), what);
    let most = |name: &str| number_after::<u64>(&read(&format!("sys/kernel/{name}")), "");
    Machine {
        load: number_after(&load, "").unwrap_or_default(),
        // All that are there, and not those that we may use.
        cpus: sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(1),
        available: kibibytes("MemAvailable:") * 1024,
        memory: kibibytes("MemTotal:") * 1024,
        // Not every kernel keeps it.
        pressure: pressure("memory", "full avg10=").map(|memory| Pressure {
            memory,
            cpu: pressure("cpu", "some avg10=").unwrap_or_default(),
            io: pressure("io", "full avg10=").unwrap_or_default(),
        }),
        // `RUNNING/ALL` is the fourth field.
        threads: number_after(&load, "/").unwrap_or_default(),
        most_threads: most("threads-max").min(most("pid_max")).unwrap_or_default(),
    }
}

/// The number that follows a name in a file of /proc.
pub(super) fn number_after<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc_are_read() {
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(
            number_after::<u64>("Max processes unlimited", "Max processes"),
            None
        );
        assert_eq!(
            number_after("some avg10=12.34 avg60=0", "some avg10="),
            Some(12.34_f32)
        );
        assert_eq!(number_after("0.15 0.10 0.05 1/345 9", "/"), Some(345));
        assert_eq!(number_after::<u64>("", "x"), None);
    }

    #[test]
    fn this_machine_has_memory_and_threads() {
        let machine = look();
        assert!(machine.memory > machine.available && machine.available > 0);
        assert!(machine.threads > 0 && machine.most_threads > machine.threads);
    }
}
