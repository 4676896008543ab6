//! What the process itself uses, read from `/proc` at each scrape; absent where that is not to be
//! had.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// `process_resident_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_threads`.
#[derive(Debug)]
pub struct Process;

/// The number after `key` in a file of lines such as `VmRSS:  1234 kB`.
fn number_after(text: &str, key: &str) -> Option<i64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().find_map(|word| word.parse().ok())
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let fds = fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count() as i64);
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                number_after(&status, "VmRSS:").map(|kb| kb * 1024),
            ),
            ("process_threads", "Threads", number_after(&status, "Threads:")),
            ("process_open_fds", "Open file descriptors", fds),
            (
                "process_max_fds",
                "File descriptors that may be open",
                number_after(&limits, "Max open files"),
            ),
        ] {
            if let Some(value) = value {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_nothing_else() {
        let text = "Name:\tx\nVmRSS:\t  1234 kB\nMax open files  1024  4096 files\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(1234));
        assert_eq!(number_after(text, "Max open files"), Some(1024));
        assert_eq!(number_after("VmRSS: much", "VmRSS:"), None);
        assert_eq!(number_after("", "VmRSS:"), None);
    }
}
