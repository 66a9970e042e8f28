//! Compiles what driver and workers say to each other from `proto/control.proto`. By protox, which is Rust: nobody who builds
//! Thalweg has to install `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/control.proto");
    let files = protox::compile(["control.proto"], ["proto"])?;
    // Bytes that follow a message are handed on as they were received.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
