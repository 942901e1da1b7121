//! What the JSON Schema of documents has beyond what is derived.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{Source, Span};

impl JsonSchema for Source {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let place = |name: &str| {
            json_schema!({
                "type": "object",
                "properties": { name: { "type": "string", "minLength": 1 } },
                "required": [name],
                "additionalProperties": false
            })
        };
        json_schema!({
            "description": "A secret, the environment variable or the file that holds it",
            "anyOf": [{ "type": "string" }, place("env"), place("file")]
        })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration: 250ms, 2s, 15m, 24h",
            "type": "string",
            "examples": ["250ms", "2s", "15m", "24h"]
        })
    }
}

/// A `null` is as good as leaving a field out: where that may be done, null may stand.
pub(crate) fn nullable(schema: &mut Schema) {
    let required = match schema.get("required") {
        Some(Value::Array(names)) => names.clone(),
        _ => Vec::new(),
    };
    let Some(Value::Object(fields)) = schema.get_mut("properties") else {
        return;
    };
    for (name, field) in fields {
        if required.iter().any(|other| other == name) {
            continue;
        }
        if let Some(values) = field
            .get_mut("additionalProperties")
            .filter(|values| values.is_object())
        {
            or_null(values);
        }
        or_null(field);
    }
}

fn or_null(schema: &mut Value) {
    let null = json!({ "type": "null" });
    let Value::Object(fields) = schema else {
        return;
    };
    if let Some(types) = fields.get_mut("type") {
        match types {
            Value::Array(types) if types.contains(&json!("null")) => {}
            Value::Array(types) => types.push(json!("null")),
            one => *one = json!([one.clone(), "null"]),
        }
    } else if let Some(Value::Array(ways)) = fields.get_mut("anyOf") {
        if !ways.contains(&null) {
            ways.push(null);
        }
    } else if let Some(reference) = fields.remove("$ref") {
        // Without any of these it is anything at all.
        fields.insert("anyOf".into(), Value::Array(vec![json!({ "$ref": reference }), null]));
    }
}
