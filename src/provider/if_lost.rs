//! [`IfLost`] as a document writes it: `"once"`, `"never"`, `"idempotent"`, `{"within": "30s"}`.

use serde::{Deserialize, Deserializer};

use super::IfLost;
use crate::document::Span;

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Written {
    Once,
    Never,
    Within(Span),
    Idempotent,
}

impl<'de> Deserialize<'de> for IfLost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Once => Self::ReplayOnce,
            Written::Never => Self::NeverReplay,
            Written::Within(Span(limit)) => Self::ReplayWithin(limit),
            Written::Idempotent => Self::Idempotent,
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for IfLost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Replay".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}
