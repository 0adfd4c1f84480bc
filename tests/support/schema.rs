//! The audit event's JSON Schema, as it is published, and whether an event is what it says.

use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let text = include_str!("../../docs/audit-event.schema.json");
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("audit-event", serde_json::from_str(text).expect("JSON")).expect("a resource");
    let index = compiler.compile("audit-event", &mut schemas).expect("a schema");
    (schemas, index)
});

/// Panics where an event is otherwise than the schema says.
pub fn check(event: &Value) {
    let (schemas, index) = &*SCHEMA;
    if let Err(error) = schemas.validate(event, *index) {
        panic!("{error:#}\n{event}");
    }
}
