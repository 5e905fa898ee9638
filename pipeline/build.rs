//! Tells the linker where the libraries lie that an engine was built with: without it the program would not find them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(folder) = std::env::var_os("DEP_WELLSPRING_MODELS_LIBRARIES") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
