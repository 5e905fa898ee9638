//! Prints the JSON Schema of screen files: `cargo run -p wellspring-workloads --example schema > workloads/schema.json`.
#![allow(clippy::print_stdout, reason = "it prints the schema")]

fn main() {
    print!("{}", wellspring_workloads::screen::json_schema_text());
}
