//! Compiled pipelines: those of a device, and what the driver made of them, kept from process to process where it can be.
//! Enters: dispatches, and a store. Leaves: pipelines. What fails is only the keeping, which the store tells.
//!
//! A driver trusts the bytes of its cache, so they are kept under a checksum and a name that holds adapter and driver: what is
//! damaged is never handed over, and made anew.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::pixels::{self, Pixels};
use crate::plan::Dispatch;

/// Where compiled pipelines are kept between processes. This crate knows no files; who opens a device does.
pub trait PipelineStore: Debug + Send + Sync {
    /// What was saved under `key`, which is fit for a file name.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps `bytes` under `key`, in place of what was there.
    fn save(&self, key: &str, bytes: &[u8]);
    /// What was loaded is not what was saved; it is made anew. Called once for each device that is opened.
    fn damaged(&self, key: &str);
}

/// Kernel, entry point, and what was fused into it.
type Key = (&'static str, &'static str, String);

/// First bytes of what is kept, and its checksum's length.
const MAGIC: &[u8; 8] = b"wspipe01";
const SUM: usize = 8;

/// The pipelines of an open device.
#[derive(Debug)]
pub(super) struct Pipelines {
    made: Mutex<HashMap<Key, wgpu::ComputePipeline>>,
    kept: Option<Kept>,
}

/// The driver's cache, and where it is kept.
#[derive(Debug)]
struct Kept {
    cache: wgpu::PipelineCache,
    store: Arc<dyn PipelineStore>,
    key: String,
    /// Whether pipelines were made since it was saved.
    grown: Arc<AtomicBool>,
}

impl Pipelines {
    /// None yet; the driver's cache from `store`, if the device has such a thing.
    pub(super) fn new(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        store: Option<&Arc<dyn PipelineStore>>,
    ) -> Self {
        let kept = store
            .filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE))
            .zip(key(info))
            .map(|(store, key)| {
                let data = store.load(&key).and_then(|bytes| {
                    let data = opened(&bytes).map(<[u8]>::to_vec);
                    if data.is_none() {
                        store.damaged(&key);
                    }
                    data
                });
                // SAFETY: the bytes are what `get_data` gave for the adapter and the driver that the key names: the checksum
                // says that none has changed since.
                let cache = unsafe {
                    device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                        label: Some("wellspring"),
                        data: data.as_deref(),
                        fallback: true,
                    })
                };
                Kept {
                    cache,
                    store: Arc::clone(store),
                    key,
                    grown: Arc::default(),
                }
            });
        Self {
            made: Mutex::default(),
            kept,
        }
    }

    /// The pipeline of a dispatch, compiled at its first use.
    pub(super) fn get(&self, device: &wgpu::Device, d: &Dispatch) -> wgpu::ComputePipeline {
        let mut pipelines = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let fused = d.pixels.as_ref().map(Pixels::key).unwrap_or_default();
        let later = d
            .later
            .as_ref()
            .map(|(pixels, from)| pixels.later_key(*from))
            .unwrap_or_default();
        let make = || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(d.kernel),
                source: wgpu::ShaderSource::Wgsl(pixels::module(d).into()),
            });
            if let Some(kept) = &self.kept {
                kept.grown.store(true, Ordering::Relaxed);
            }
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(d.entry),
                layout: None,
                module: &module,
                entry_point: Some(d.entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: self.kept.as_ref().map(|kept| &kept.cache),
            })
        };
        pipelines
            .entry((d.kernel, d.entry, fused + &later))
            .or_insert_with(make)
            .clone()
    }

    /// The driver's cache, for others that compile pipelines on the device, and the word that they did.
    pub(super) fn cache(&self) -> Option<(wgpu::PipelineCache, Arc<AtomicBool>)> {
        let kept = self.kept.as_ref()?;
        Some((kept.cache.clone(), Arc::clone(&kept.grown)))
    }

    /// Keeps what was compiled since the last time, if anything was.
    pub(super) fn save(&self) {
        if let Some(kept) = &self.kept
            && kept.grown.swap(false, Ordering::Relaxed)
            && let Some(data) = kept.cache.get_data()
        {
            kept.store.save(&kept.key, &sealed(&data));
        }
    }
}

/// A name for the adapter and its driver: letters, digits, dots and dashes.
fn key(info: &wgpu::AdapterInfo) -> Option<String> {
    let adapter = wgpu::util::pipeline_cache_key(info)?;
    let words = format!("{adapter}-{}-{}-{}", info.name, info.driver, info.driver_info);
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let mut name: String = words.chars().map(fit).take(150).collect();
    // What was cut off or replaced still counts.
    name.push_str(&format!("-{:016x}", checksum(words.as_bytes())));
    Some(name)
}

/// FNV-1a of 64 bits: it finds damage, it does not keep out forgers.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn sealed(data: &[u8]) -> Vec<u8> {
    [MAGIC, &checksum(data).to_le_bytes()[..], data].concat()
}

/// What [`sealed`] was given; nothing if a byte is another.
fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, data) = bytes.strip_prefix(MAGIC)?.split_at_checked(SUM)?;
    (sum == checksum(data).to_le_bytes()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        let whole = sealed(&[7, 8, 9]);
        assert_eq!(opened(&whole), Some(&[7, 8, 9][..]));
        assert_eq!(opened(&sealed(&[])), Some(&[][..]));
        for cut in 0..whole.len() {
            assert_eq!(opened(&whole[..cut]), None, "{cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 4;
            assert_eq!(opened(&changed), None, "{cut}");
        }
        // The checksum's published value.
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
