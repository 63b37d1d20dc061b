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

/// Gives back what an idle process does not need: unused heap pages (`malloc_trim(3)`), and its claim on its own program's
/// pages (`madvise(2)`, `MADV_DONTNEED`), which stay in the page cache and are mapped again, a few at a time, when they are
/// next used.
pub fn give_back() {
    unsafe extern "C" {
        // From the linker, `end(3)`: the program's read-only segments lie between them.
        static __executable_start: u8;
        static etext: u8;
    }
    // SAFETY: takes a plain number and the allocator's own lock.
    unsafe { libc::malloc_trim(0) };
    let start = (&raw const __executable_start) as usize & !(PAGE - 1);
    let end = (&raw const etext) as usize & !(PAGE - 1);
    // SAFETY: the range is mapped from the program's file and never written, so every page comes back as it was.
    unsafe {
        libc::madvise(
            start as *mut libc::c_void,
            end.saturating_sub(start),
            libc::MADV_DONTNEED,
        )
    };
}

/// The largest page size that our architectures use, so that no neighbouring page is touched.
const PAGE: usize = 64 * 1024;
