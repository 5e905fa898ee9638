//! What is read at most, so that a forged file is an error and not a dead worker.

/// What is read at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of a page, and of one strip or tile. The default, 2^28 (16384 x 16384), is far above any camera of the field.
    pub pixels: u64,
    /// Pages of a file. The default is 2^20.
    pub pages: usize,
    /// Bytes a page may become whatever the size of the file: an image of one grey level becomes almost nothing when
    /// compressed, and is not an attack. The default is 64 MiB, 5792 x 5792 pixels of 16 bit.
    pub free_bytes: u64,
    /// Above `free_bytes`, the most a page may become for each byte of the file that it is made from. The default is 64;
    /// images of cells reach 10.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pixels: 1 << 28,
            pages: 1 << 20,
            free_bytes: 64 << 20,
            ratio: 64,
        }
    }
}

impl Limits {
    /// The most bytes that `encoded` bytes may become.
    pub(crate) fn decoded_bytes(&self, encoded: u64) -> u64 {
        self.free_bytes.max(self.ratio.saturating_mul(encoded))
    }
}
