//! The description of the service in the OpenAPI format, version 3.1.

use serde_json::{Value, json};
use skep_learning::Interface;
use skep_learning::table::{Column, Encoder, Kind};

use super::Limits;

/// What can be asked of a model that takes `inputs` numbers.
pub(super) fn description(task: &str, interface: &Interface, inputs: usize, limits: &Limits) -> Value {
    let list = json!({
        "type": "array",
        "description": format!("{inputs} numbers in the model's order; an image may be nested as rows, pixels and channels"),
    });
    let instance = match (interface.table(), interface.columns()) {
        (Some(encoder), _) => row(encoder),
        (None, Some(columns)) => {
            let number = |column: &String| (column.clone(), json!({ "type": "number" }));
            let properties: serde_json::Map<String, Value> = columns.iter().map(number).collect();
            json!({ "oneOf": [list, { "type": "object", "properties": properties, "required": columns }] })
        }
        (None, None) => list,
    };
    let failure = |what: &str| json!({ "description": what, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } });
    let plain = |what: &str, kind: &str| json!({ "get": { "summary": what, "responses": { "200": { "description": what, "content": { kind: {} } } } } });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Predictions of the model {task}"),
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": {
            "/predict": { "post": {
                "summary": "What the model says of examples",
                "requestBody": {
                    "required": true,
                    "description": format!("at most {} bytes", limits.bytes),
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Question" } } },
                },
                "responses": {
                    "200": {
                        "description": "A prediction for each example, in their order",
                        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Answer" } } },
                    },
                    "400": failure("Not JSON, or not of the form of a question"),
                    "408": failure("The request did not arrive in time"),
                    "413": failure("Too many bytes or examples"),
                    "415": failure("The content is not application/json"),
                    "422": failure("An example that the model does not take; the error says which and why"),
                    "503": failure("Too busy: try again"),
                },
            } },
            "/health": plain("Whether the model can be asked", "application/json"),
            "/metrics": plain("Counts and times for Prometheus", "text/plain"),
            "/openapi.json": plain("This description", "application/json"),
        },
        "components": { "schemas": {
            "Question": {
                "type": "object",
                "required": ["instances"],
                "additionalProperties": false,
                "properties": {
                    "instances": { "type": "array", "minItems": 1, "maxItems": limits.rows, "items": instance },
                },
            },
            "Answer": {
                "type": "object",
                "required": ["predictions"],
                "properties": { "predictions": { "type": "array", "items": prediction(interface) } },
            },
            "Error": { "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } },
        } },
    })
}

/// A row of a table: an object, or a list in the order of its columns.
fn row(encoder: &Encoder) -> Value {
    let kind = |column: &Column| match (&column.kind, &column.missing) {
        (Kind::Number, None) => json!({ "type": "number" }),
        (Kind::Number, Some(_)) => json!({ "type": ["number", "null"] }),
        (Kind::Category { categories, other: false }, None) => json!({ "enum": categories }),
        (Kind::Category { .. }, None) => json!({ "type": "string" }),
        (Kind::Category { .. }, Some(_)) => json!({ "type": ["string", "null"] }),
    };
    let columns = encoder.columns();
    let properties: serde_json::Map<String, Value> =
        columns.iter().map(|column| (column.name.clone(), kind(column))).collect();
    let required: Vec<&String> =
        columns.iter().filter(|column| column.missing.is_none()).map(|column| &column.name).collect();
    json!({ "oneOf": [
        { "type": "array", "minItems": columns.len(), "maxItems": columns.len() },
        { "type": "object", "properties": properties, "required": required },
    ] })
}

/// What a prediction is.
fn prediction(interface: &Interface) -> Value {
    match &interface.target {
        Some(target) => json!({
            "type": "object",
            "required": ["number"],
            "properties": { "number": { "type": "number", "description": format!("`{}`, in its own unit", target.column) } },
        }),
        None => json!({
            "type": "object",
            "required": ["class", "probabilities"],
            "properties": {
                "class": { "type": "string", "enum": interface.classes },
                "probabilities": { "type": "object", "additionalProperties": { "type": "number" } },
            },
        }),
    }
}
