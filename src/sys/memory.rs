//! The allocator's settings, for a process that must stay small.

/// One arena for all threads, memory given back early, no per-thread reserve. glibc's `mallopt(3)`.
pub fn keep_allocator_small() {
    // SAFETY: mallopt takes plain numbers, before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 16 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Gives unused heap pages back to the kernel: `malloc_trim(3)`.
pub fn trim() {
    // SAFETY: takes a plain number and the allocator's own lock.
    unsafe { libc::malloc_trim(0) };
}
