//! The documentation of the JSON against the JSON.

use crate::{rendered, sample};
use ethogram_model::Fold;
use ethogram_view::{Field, Format, SCHEMA, TextOptions};
use serde_json::Value;
use std::collections::BTreeSet;

const SCHEMA_JSON: &str = include_str!("../../../../docs/summary.schema.json");
const DESCRIPTION: &str = include_str!("../../../../docs/summary.md");

fn schema() -> Value {
    serde_json::from_str(SCHEMA_JSON).unwrap()
}

fn json(fold: Fold) -> Value {
    let document = sample::document(|o| o.fold = fold);
    serde_json::from_str(&rendered(&document, Format::Json, &TextOptions::default())).unwrap()
}

/// Checks a value against the few words of JSON Schema that ours uses, noting the
/// properties that occurred.
struct Checker {
    schema: Value,
    seen: BTreeSet<String>,
}

impl Checker {
    fn check(&mut self, value: &Value, schema: &Value, at: &str) {
        if let Some(reference) = schema.get("$ref") {
            let pointer = reference.as_str().unwrap().trim_start_matches('#');
            let target = self.schema.pointer(pointer).expect(pointer).clone();
            return self.check(value, &target, at);
        }
        let is = match schema["type"].as_str().expect(at) {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            other => panic!("{at}: this test does not know {other}"),
        };
        assert!(is, "{at}: {value} is not {schema}");
        if let Some(words) = schema.get("enum") {
            assert!(words.as_array().unwrap().contains(value), "{at}: {value}");
        }
        if let Some(word) = schema.get("const") {
            assert_eq!(word, value, "{at}");
        }
        if schema.get("format").is_some() {
            let time = value.as_str().unwrap();
            assert!(
                time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
                "{at}: {time}"
            );
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(item, &schema["items"], &format!("{at}[{index}]"));
        }
        if let Some(object) = value.as_object() {
            self.check_object(object, schema, at);
        }
    }

    fn check_object(&mut self, object: &serde_json::Map<String, Value>, schema: &Value, at: &str) {
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                object.contains_key(required.as_str().unwrap()),
                "{at}: no {required}"
            );
        }
        for (key, value) in object {
            let at = format!("{at}.{key}");
            match schema["properties"].get(key) {
                Some(property) => {
                    self.seen.insert(key.clone());
                    self.check(value, property, &at);
                }
                None => self.check(value, schema.get("additionalProperties").expect(&at), &at),
            }
        }
    }
}

fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    if let Some(own) = schema.get("properties").and_then(Value::as_object) {
        names.extend(own.keys().cloned());
        own.values()
            .for_each(|property| properties(property, names));
    }
    for (_, definition) in schema["$defs"].as_object().into_iter().flatten() {
        properties(definition, names);
    }
}

#[test]
fn the_json_is_what_the_schema_says_and_has_all_it_names() {
    let mut checker = Checker {
        schema: schema(),
        seen: BTreeSet::new(),
    };
    for fold in [Fold::None, Fold::Auto] {
        checker.check(&json(fold), &schema(), "summary");
    }
    let mut named = BTreeSet::new();
    properties(&schema(), &mut named);
    assert_eq!(checker.seen, named);
}

#[test]
fn the_schema_has_the_version_and_the_fields_of_the_program() {
    let schema = schema();
    assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    let row = schema["$defs"]["row"]["properties"].as_object().unwrap();
    let documented: BTreeSet<_> = row.keys().map(String::as_str).collect();
    let defined: BTreeSet<_> = Field::ALL.iter().map(|field| field.name()).collect();
    assert_eq!(documented, defined);
}

#[test]
fn the_description_has_a_line_for_every_property() {
    let mut named = BTreeSet::new();
    properties(&schema(), &mut named);
    for name in named {
        assert!(
            DESCRIPTION.contains(&format!("| `{name}` |")),
            "docs/summary.md: {name}"
        );
    }
    assert!(DESCRIPTION.contains(SCHEMA));
}
