//! What is told of memory.

use std::sync::LazyLock;

use metrics::{Gauge, describe_gauge, gauge};

use crate::memory::MemoryUse;

static MEMORY: LazyLock<Memory> = LazyLock::new(Memory::register);

struct Memory {
    budget: Gauge,
    used: Gauge,
    peak: Gauge,
    waiting: Gauge,
    resident_peak: Gauge,
}

impl Memory {
    fn register() -> Self {
        describe_gauge!("highwater_memory_budget_bytes", "What the process may hold (--memory).");
        describe_gauge!("highwater_memory_used_bytes", "What requests and answers hold of the budget now.");
        describe_gauge!(
            "highwater_memory_peak_bytes",
            "The most that requests and answers have held at once."
        );
        describe_gauge!(
            "highwater_memory_waiting",
            "Connections that wait for memory and are not read meanwhile."
        );
        describe_gauge!(
            "highwater_memory_resident_peak_bytes",
            "The most that the process has held, mapped pages of segments included (VmHWM)."
        );
        Self {
            budget: gauge!("highwater_memory_budget_bytes"),
            used: gauge!("highwater_memory_used_bytes"),
            peak: gauge!("highwater_memory_peak_bytes"),
            waiting: gauge!("highwater_memory_waiting"),
            resident_peak: gauge!("highwater_memory_resident_peak_bytes"),
        }
    }
}

/// Registers them.
pub(super) fn install() {
    LazyLock::force(&MEMORY);
}

/// How the memory budget is used, and what the system says of the process.
pub(crate) fn set_memory(reading: &MemoryUse, resident_peak_bytes: Option<u64>) {
    MEMORY.budget.set(reading.budget_bytes as f64);
    MEMORY.used.set(reading.used_bytes as f64);
    MEMORY.peak.set(reading.peak_bytes as f64);
    MEMORY.waiting.set(reading.waiting as f64);
    MEMORY.resident_peak.set(resident_peak_bytes.unwrap_or(0) as f64);
}
