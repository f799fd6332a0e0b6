//! Where traces of requests go.
//!
//! Enters: `telemetry`. Leaves: [`Telemetry`]. May go wrong: a ratio that is none from 0 to 1, an address that
//! is none.

use crate::endpoint::BaseUrl;
use crate::header::Headers;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Traces in OpenTelemetry's protocol.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Telemetry {
    /// Collector that takes OTLP over HTTP: traces go to `/v1/traces` below it. `None`: there are none.
    pub otlp_endpoint: Option<BaseUrl>,
    /// Headers that the collector asks for. A value cannot be copied from a client here.
    pub headers: Headers,
    /// Share of requests that are traced, where the client's own trace does not say.
    pub sample_ratio: Ratio,
    /// Name of this service in traces.
    pub service_name: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            headers: Headers::default(),
            sample_ratio: Ratio::ALL,
            service_name: "cliproxy".to_owned(),
        }
    }
}

/// A share, in millionths: 0 to 1 in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// From 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL.0)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(self.share())
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(input)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(de::Error::custom("expected a share from 0 to 1"));
        }
        Ok(Self((share * f64::from(Self::ALL.0)).round() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    #[test]
    fn a_block_is_read_and_its_headers_are_secrets() {
        let text = b"telemetry: {otlp-endpoint: 'http://collector:4318/', headers: {authorization: CANARY-0123456789}, sample-ratio: 0.25}\n";
        let loaded = load(text).unwrap();
        let telemetry = &loaded.config.telemetry;
        assert_eq!(telemetry.otlp_endpoint.as_ref().unwrap().as_str(), "http://collector:4318");
        assert_eq!((telemetry.sample_ratio.share(), telemetry.service_name.as_str()), (0.25, "cliproxy"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(!format!("{telemetry:?}").contains("CANARY"));
        assert!(!loaded.config.redacted().contains("CANARY"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("telemetry: {sample-ratio: 1.5}", "from 0 to 1"),
            ("telemetry: {sample-ratio: -1}", "from 0 to 1"),
            ("telemetry: {otlp-endpoint: 'collector:4318'}", "http://"),
        ] {
            let broken = load(text.as_bytes()).unwrap_err().to_string();
            assert!(broken.contains(part), "{text}: {broken}");
        }
        let whole = load(b"telemetry: {sample-ratio: 1}").unwrap().config.telemetry.sample_ratio;
        assert_eq!(whole, Ratio::ALL);
        assert_eq!(load(b"telemetry: {sample: 1}").unwrap().warnings.len(), 1);
    }
}
