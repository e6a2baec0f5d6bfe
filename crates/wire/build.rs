//! Generates the messages from `proto/`, without `protoc`.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 3] = ["common.proto", "uplink.proto", "peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = FILES.map(|file| root.join("starling/cluster/v1").join(file));
    let descriptors = protox::compile(files, [root])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        // A session is much larger than what is said of one all day long.
        .boxed(".starling.cluster.v1.UpEnvelope.up.attach")
        .compile_fds(descriptors)?;
    Ok(())
}
