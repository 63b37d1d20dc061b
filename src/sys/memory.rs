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

/// Times that a child process notes, in memory that it shares with its parent.
#[derive(Debug)]
pub struct SharedTimes {
    base: *mut u64,
    len: usize,
}

// SAFETY: the memory is a mapping of its own, and is read and written by whole words only.
unsafe impl Send for SharedTimes {}
// SAFETY: as above.
unsafe impl Sync for SharedTimes {}

impl SharedTimes {
    /// Room for so many.
    pub fn new(len: usize) -> super::Result<Self> {
        // SAFETY: an anonymous mapping at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(nix::errno::Errno::last());
        }
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Notes the time. Async-signal-safe.
    pub fn note(&self, index: usize) {
        if index < self.len {
            let mut now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `now` is writable, and the index is within the mapping.
            unsafe {
                libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
                self.base
                    .add(index)
                    .write_volatile(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64);
            }
        }
    }

    /// A time in nanoseconds; 0 where none was noted.
    pub fn get(&self, index: usize) -> u64 {
        if index < self.len {
            // SAFETY: the index is within the mapping.
            unsafe { self.base.add(index).read_volatile() }
        } else {
            0
        }
    }
}

impl Drop for SharedTimes {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe {
            libc::munmap(self.base.cast(), self.len * 8);
        }
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
