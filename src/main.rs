//! The `larder` binary: everything is in the library, but for the allocator, which is the process's.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    refuse_huge_pages();
    larder::cli::main()
}

/// Has memory come in pages of a few KiB, of which only those that are written to are taken.
///
/// Where the system gives huge pages to whoever asks for them, as mimalloc does, or to all, the first byte of 2 MiB
/// takes all of it, and what is given back in parts is never given back. With many connections, each of which holds a
/// little, that was half as much again as Larder had counted, and nothing that it counts could bound it.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    let _then_it_takes_more = rustix::thread::disable_transparent_huge_pages(true);
}
