//! The process's memory: how much it has held, and giving back what is free.

/// Most memory the process has held, in bytes; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    named_bytes(&status, "VmHWM:").unwrap_or(0)
}

/// Memory that the process may have, in bytes: the machine's, or less where its container or control group is bounded. `None`
/// where the system does not say.
pub fn most_bytes() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let of_machine = named_bytes(&read("/proc/meminfo"), "MemTotal:");
    // Of the second version of control groups, and of the first; without a bound neither is a number that matters.
    let files = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let of_group = files.iter().filter_map(|file| read(file).trim().parse().ok());
    of_machine.into_iter().chain(of_group).min()
}

/// Memory that is free for new work, in bytes.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    named_bytes(&text, "MemAvailable:")
}

/// A number of kB by its name in a file of `/proc`, in bytes.
fn named_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Blocks of at least so many bytes are the system's own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BLOCK: libc::c_int = 256 << 10;

/// Has glibc's allocator return every large block as soon as it is free, for work that passes over tables of any length:
/// by itself it keeps such blocks, ever larger ones, among small ones that live long, and the holes between them add up.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes no pointer; glibc guards its parameters with its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
    }
}

/// [`give_back_free`] at every `every`-th of the things done so far: what is kept of each lies between what is not, and the
/// holes would grow with their number.
pub fn give_back_every(every: usize, done: usize) {
    if done.is_multiple_of(every) {
        give_back_free();
    }
}

/// Gives the allocator's free memory back to the system, where the allocator is glibc's: what threads that have ended
/// used is otherwise kept for threads that will never come.
pub fn give_back_free() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc_by_their_names() {
        let text = "MemTotal:       24645228 kB\nMemAvailable:   2097152 kB\nHugePages_Total:       0\n";
        assert_eq!(named_bytes(text, "MemAvailable:"), Some(2 << 30));
        assert_eq!(named_bytes(text, "HugePages_Total:"), None);
        assert_eq!(named_bytes(text, "MemFree:"), None);
    }
}
