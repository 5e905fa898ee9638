//! Tells the linker, of this crate's tests and examples and through `links` of programs, where libtorch lies.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys says so to those who depend on it, and only where the feature `libtorch` brings it in.
    if let Some(folder) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") {
        let folder = folder.display();
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        println!("cargo::metadata=libraries={folder}");
    }
}
