//! What is wrong with the machine, and not with the server: memory and load (`proc(5)`).

use nix::unistd::{SysconfVar, sysconf};

use super::parse::number_after;

/// The machine that the server runs on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) load: f32,
    pub(crate) cpus: usize,
    /// Bytes of memory that can be had, of all.
    pub(crate) available: u64,
    pub(crate) memory: u64,
    /// Where the kernel keeps it.
    pub(crate) pressure: Option<Pressure>,
    /// Threads of all processes, and how many there can be.
    pub(crate) threads: u64,
    pub(crate) most_threads: u64,
}

/// Percent of the last 10 seconds that something stood still for want of it
/// (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    /// Everything, for memory.
    pub(crate) memory: f32,
    /// Something, for a CPU.
    pub(crate) cpu: f32,
    /// Everything, for a disk.
    pub(crate) io: f32,
}

/// Looks at the machine.
pub(crate) fn look() -> Machine {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_threads() {
        let machine = look();
        assert!(machine.memory > machine.available && machine.available > 0);
        assert!(machine.threads > 0 && machine.most_threads > machine.threads);
    }
}
