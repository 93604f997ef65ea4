//! The `larder` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    larder::cli::main()
}
