//! What the operating system knows of this process, read when somebody asks.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};

/// Memory, file descriptors and threads, from `/proc`. Elsewhere than on Linux there is nothing to read.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<i64>().ok()
        };
        let descriptors =
            std::fs::read_dir("/proc/self/fd").ok().and_then(|list| i64::try_from(list.count()).ok());
        let gauges = [
            (
                "process_resident_memory",
                "Memory in use",
                Some(Unit::Bytes),
                number("VmRSS:").map(|kib| kib * 1_024),
            ),
            ("process_open_fds", "Open file descriptors", None, descriptors),
            ("process_threads", "Threads", None, number("Threads:")),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
            }
        }
        Ok(())
    }
}
