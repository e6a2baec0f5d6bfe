//! `starling version`.

use crate::print;

pub(crate) fn print(json: bool) {
    let version = env!("CARGO_PKG_VERSION");
    let (os, cpu) = (std::env::consts::OS, std::env::consts::ARCH);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    if json {
        let value = serde_json::json!({ "name": "starling", "version": version, "os": os, "cpu": cpu, "profile": profile });
        print::line(&value.to_string());
    } else {
        print::line(&format!("starling {version} ({os} {cpu}, {profile})"));
    }
}
