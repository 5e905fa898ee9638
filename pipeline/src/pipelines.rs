//! Compiled pipelines of graphics devices, kept as files in the user's cache folder.
//!
//! The device layer's bytes enter and leave, one file per adapter and driver. What fails is told in the log and costs no more
//! than compiling anew.

use std::path::PathBuf;

use wellspring_kernels::PipelineStore;

/// Larger files are not ours.
const LARGEST: u64 = 256 << 20;

/// A folder of them.
#[derive(Debug)]
pub struct PipelineFiles {
    folder: PathBuf,
}

impl PipelineFiles {
    /// In `folder`, which is made when something is kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.bin"))
    }
}

impl PipelineStore for PipelineFiles {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let read = std::fs::metadata(&path).and_then(|file| match file.len() {
            ..=LARGEST => std::fs::read(&path),
            bytes => Err(std::io::Error::other(format!("it holds {bytes} bytes"))),
        });
        match read {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "compiled pipelines cannot be read; they are compiled anew");
                None
            }
        }
    }

    fn save(&self, key: &str, bytes: &[u8]) {
        // Under a name of its own first: a process that ends, or another one, leaves no half of a file.
        let (path, beside) = (
            self.path(key),
            self.path(&format!("{key}.{}", std::process::id())),
        );
        let kept = std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&beside, bytes))
            .and_then(|()| std::fs::rename(&beside, &path));
        if let Err(error) = kept {
            let path = path.display();
            tracing::warn!(%path, %error, "compiled pipelines cannot be kept; the next process compiles them anew");
        }
    }

    fn damaged(&self, key: &str) {
        let path = self.path(key);
        let path = path.display();
        tracing::warn!(%path, "the file of compiled pipelines is damaged; they are compiled anew, and the file with them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_cannot_be_kept_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let files = PipelineFiles::new(folder.path().join("a/b"));
        assert_eq!(files.load("gpu-1"), None);
        files.save("gpu-1", b"one");
        files.save("gpu-1", b"two");
        files.save("gpu-2", b"");
        assert_eq!(files.load("gpu-1").as_deref(), Some(&b"two"[..]));
        assert_eq!(files.load("gpu-2").as_deref(), Some(&b""[..]));
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).unwrap().count(), 2);
        // A file where the folder should be, a folder where the file should be.
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let files = PipelineFiles::new(folder.path().join("file"));
        files.save("gpu-1", b"one");
        assert_eq!(files.load("gpu-1"), None);
        std::fs::create_dir(folder.path().join("gpu-3.bin")).unwrap();
        assert_eq!(PipelineFiles::new(folder.path().to_owned()).load("gpu-3"), None);
    }
}
