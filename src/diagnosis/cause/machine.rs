//! Causes that lie with the machine: its memory, its threads, its load and its disks.

use super::catalog::Cause;
use crate::diagnosis::snapshot::Full;
use crate::proc::machine::Machine;

pub(super) fn full(full: &Full) -> Cause {
    Cause::DiskFull {
        directory: full.directory.clone(),
        inodes: full.inodes,
    }
}

pub(super) fn causes(machine: &Machine) -> Vec<Cause> {
    let pressure = machine.pressure.unwrap_or_default();
    let mut found = Vec::new();
    if machine.memory > 0 && (machine.available < machine.memory / 50 || pressure.memory >= 20.0) {
        found.push(Cause::MachineMemory {
            available: machine.available,
            total: machine.memory,
            pressure: machine.pressure.map(|pressure| pressure.memory),
        });
    }
    if machine.most_threads > 0 && machine.threads >= machine.most_threads / 100 * 98 {
        found.push(Cause::MachineThreads {
            used: machine.threads,
            most: machine.most_threads,
        });
    }
    let cpus = u16::try_from(machine.cpus).unwrap_or(u16::MAX);
    // Processes that wait for a disk count for the load, too.
    let is_overloaded = match machine.pressure {
        Some(pressure) => pressure.cpu >= 90.0,
        None => machine.load > 8.0 * f32::from(cpus),
    };
    if is_overloaded {
        found.push(Cause::Overload {
            load: machine.load,
            cpus,
            pressure: machine.pressure.map(|pressure| pressure.cpu),
        });
    }
    if pressure.io >= 50.0 {
        found.push(Cause::DiskPressure(pressure.io));
    }
    found
}
