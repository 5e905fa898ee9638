//! The process's memory: how much it has held, and giving back what is free.

/// Most memory the process has held, in bytes; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .map_or(0, |kib| kib * 1024)
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
