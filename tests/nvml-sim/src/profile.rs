//! What a real GPU answered, call by call: the default behaviour of a model where there is a recording of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Recordings that every simulated GPU of their model follows.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/nvml");

/// The file of a recording; see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    #[expect(dead_code, reason = "for the reader of the file")]
    model: String,
    #[expect(dead_code, reason = "for the reader of the file")]
    #[serde(default)]
    driver_version: Option<String>,
    /// Whether nobody has recorded it.
    #[expect(dead_code, reason = "for the reader of the file")]
    #[serde(default)]
    invented: bool,
    answers: Vec<Recorded>,
}

/// One answer of a recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    call: String,
    rc: u32,
    #[serde(default)]
    value_type: Option<u32>,
    latency_us: u64,
}

/// How a model answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    answers: BTreeMap<String, (u32, Option<u32>, u64)>,
}

impl Profile {
    /// The recording that the scenario names, or that of the model; without one nothing is special.
    pub(crate) fn find(named: Option<&str>, model: &str, folder: &Path) -> Profile {
        let file = match named {
            Some(named) => folder.join(named),
            None => of_model(model),
        };
        std::fs::read_to_string(file).ok().and_then(|text| Profile::parse(&text).ok()).unwrap_or_default()
    }

    /// Reads the text of a recording.
    ///
    /// # Errors
    /// When it is none.
    fn parse(text: &str) -> Result<Profile, serde_json::Error> {
        let recording: Recording = serde_json::from_str(text)?;
        let answers = recording.answers.into_iter();
        Ok(Profile { answers: answers.map(|a| (a.call, (a.rc, a.value_type, a.latency_us))).collect() })
    }

    /// The code that the call was refused with.
    pub(crate) fn refusal(&self, call: &str) -> Option<u32> {
        self.answers.get(call).map(|answer| answer.0).filter(|code| *code != 0)
    }

    /// The type that the field had.
    pub(crate) fn value_type(&self, call: &str) -> Option<u32> {
        self.answers.get(call).and_then(|answer| answer.1)
    }

    /// How long the call took.
    pub(crate) fn latency_us(&self, call: &str) -> Option<u64> {
        self.answers.get(call).map(|answer| answer.2)
    }
}

/// `NVIDIA H100 80GB HBM3` is in `nvidia_h100_80gb_hbm3.json`.
fn of_model(model: &str) -> PathBuf {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    Path::new(FOLDER).join(model.chars().map(letter).collect::<String>() + ".json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_gives_codes_types_and_latencies() {
        let text = r#"{ "model": "NVIDIA H100", "invented": true, "answers": [
            { "call": "nvmlDeviceGetFanSpeed_v2", "rc": 3, "latency_us": 4 },
            { "call": "field:82:0", "rc": 0, "value_type": 5, "latency_us": 110 } ] }"#;
        let profile = Profile::parse(text).unwrap();
        assert_eq!((profile.refusal("nvmlDeviceGetFanSpeed_v2"), profile.refusal("field:82:0")), (Some(3), None));
        assert_eq!((profile.value_type("field:82:0"), profile.latency_us("field:82:0")), (Some(5), Some(110)));
        assert!(of_model("NVIDIA H100 80GB HBM3").ends_with("nvidia_h100_80gb_hbm3.json"));
    }
}
