//! What can be known of the machine: features and caches of the processor, memory of this process.

use std::fs;
use std::path::Path;

/// The largest resident memory of this process so far, in bytes; `None` where the system does not tell.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Of the vector extensions that matrix multiplication chooses among, those that the processor has.
pub(crate) fn cpu_features() -> Vec<&'static str> {
    detected().iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect()
}

/// The caches of the first core, from the inside out.
pub(crate) fn cpu_caches() -> Vec<String> {
    let read = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    (0..8)
        .map_while(|index| {
            let cache = Path::new("/sys/devices/system/cpu/cpu0/cache").join(format!("index{index}"));
            let kind = match read(&cache.join("type"))?.as_str() {
                "Data" => "d",
                "Instruction" => "i",
                _ => "",
            };
            Some(format!("L{}{kind} {}", read(&cache.join("level"))?, read(&cache.join("size"))?))
        })
        .collect()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("sse4.2", has!("sse4.2")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("avx512f", has!("avx512f")),
        ("avx512bw", has!("avx512bw")),
        ("avx512vl", has!("avx512vl")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![("neon", has!("neon")), ("fp16", has!("fp16")), ("sve", has!("sve"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Vec<(&'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_was_touched_is_counted() {
        let before = peak_rss_bytes().unwrap();
        let touched = vec![1u8; 64 << 20];
        assert!(touched.iter().all(|&byte| byte == 1));
        assert!(peak_rss_bytes().unwrap() >= before.max(64 << 20));
    }
}
