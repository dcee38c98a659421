//! What is wrong with the machine, and not with the server: memory and load (`proc(5)`).

use nix::unistd::{SysconfVar, sysconf};

use procfs::{FromBufRead, FromRead, LoadAverage, Meminfo, PressureRecord, parse_pressure_record};

use super::parse::number_after;
use super::process::{Proc, SMALL};

/// The name of this machine (`proc_sys_kernel(5)`).
pub(crate) fn host_name() -> String {
    let path = Proc::here().0.join("sys/kernel/hostname");
    let name = std::fs::read_to_string(path).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost" } else { name }.to_owned()
}

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

/// Pressure, in percent of the last 10 seconds (Documentation/accounting/psi.rst).
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
pub(crate) fn look(proc: Proc) -> Machine {
    let read = |name: &str| super::process::read(&proc.0.join(name), SMALL).unwrap_or_default();
    let memory = Meminfo::from_buf_read(read("meminfo").as_slice()).ok();
    let load = LoadAverage::from_read(read("loadavg").as_slice()).ok();
    let most = |name: &str| {
        let text = read(&format!("sys/kernel/{name}"));
        number_after::<u64>(&String::from_utf8_lossy(&text), "")
    };
    // Not every kernel has these files, nor the line "full" for a CPU (Linux 5.13).
    let pressure = |name: &str, what: &str| {
        let text = read(&format!("pressure/{name}"));
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| line.starts_with(what))?;
        let record: PressureRecord = parse_pressure_record(line).ok()?;
        Some(record.avg10)
    };
    Machine {
        load: load.as_ref().map_or(0.0, |load| load.one),
        // All that are there, and not those that we may use.
        cpus: sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(1),
        available: memory
            .as_ref()
            .and_then(|memory| memory.mem_available)
            .unwrap_or_default(),
        memory: memory.map_or(0, |memory| memory.mem_total),
        pressure: pressure("memory", "full").map(|memory| Pressure {
            memory,
            cpu: pressure("cpu", "some").unwrap_or_default(),
            io: pressure("io", "full").unwrap_or_default(),
        }),
        threads: load.map_or(0, |load| load.max.into()),
        most_threads: most("threads-max").min(most("pid_max")).unwrap_or_default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_machine_has_memory_and_threads() {
        let machine = look(Proc::here());
        assert!(machine.memory > machine.available && machine.available > 0);
        assert!(machine.threads > 0 && machine.most_threads > machine.threads);
    }

    #[test]
    fn a_captured_machine_is_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(look(Proc(root.path())).memory, 0);
        // The values that procfs insists on; MemAvailable came with Linux 3.14.
        let fields = [
            "Buffers",
            "Cached",
            "SwapCached",
            "Active",
            "Inactive",
            "SwapTotal",
            "SwapFree",
            "Dirty",
            "Writeback",
            "AnonPages",
            "Mapped",
            "Slab",
            "SReclaimable",
            "SUnreclaim",
            "PageTables",
            "Committed_AS",
            "VmallocTotal",
            "VmallocUsed",
            "VmallocChunk",
            "HugePages_Total",
            "HugePages_Free",
            "HugePages_Rsvd",
            "HugePages_Surp",
            "Hugepagesize",
            "Bounce",
            "NFS_Unstable",
            "CommitLimit",
            "WritebackTmp",
            "KernelStack",
            "MemFree",
        ];
        let fields: String = fields.map(|name| format!("{name}: 1 kB\n")).concat();
        let meminfo = format!("MemTotal: 4096 kB\nMemAvailable: 1024 kB\n{fields}");
        write("meminfo", &meminfo);
        write("loadavg", "0.15 0.10 0.05 1/345 9\n");
        write(
            "pressure/cpu",
            "some avg10=12.34 avg60=0.00 avg300=0.00 total=5\n",
        );
        write(
            "pressure/memory",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=2.50 avg60=0.00 avg300=0.00 total=5\n",
        );
        write("sys/kernel/threads-max", "1000\n");
        write("sys/kernel/pid_max", "500\n");
        let machine = look(Proc(root.path()));
        assert_eq!((machine.memory, machine.available), (4 << 20, 1 << 20));
        assert_eq!(
            (machine.load, machine.threads, machine.most_threads),
            (0.15, 345, 500)
        );
        let pressure = machine.pressure.unwrap();
        assert_eq!(
            (pressure.memory, pressure.cpu, pressure.io),
            (2.5, 12.34, 0.0)
        );
    }
}
