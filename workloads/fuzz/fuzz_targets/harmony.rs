#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _whatever = wellspring_workloads_fuzz::layout("harmony", input);
});
