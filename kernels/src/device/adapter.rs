//! An adapter that survives the loss of its device: a driver's reset, a card that fell asleep. Work that fails while the
//! device is lost is repeated once on a device opened anew; anything else is the caller's to judge.

use std::sync::{Arc, Mutex, PoisonError};

use super::gpu::{self, Gpu};
use super::shared::Bus;
use super::{DeviceInfo, DeviceOptions};
use crate::error::KernelError;

/// An adapter with the device that is open on it now.
#[derive(Debug)]
pub(super) struct Adapter {
    info: DeviceInfo,
    options: DeviceOptions,
    gpu: Mutex<Arc<Gpu>>,
}

impl Adapter {
    pub(super) fn open(
        info: &DeviceInfo,
        adapter: &wgpu::Adapter,
        options: &DeviceOptions,
    ) -> Result<Self, KernelError> {
        let gpu = Gpu::open(info, adapter, options, Bus::default())?;
        Ok(Self {
            info: info.clone(),
            options: options.clone(),
            gpu: Mutex::new(Arc::new(gpu)),
        })
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Does `work`, twice if the device is lost meanwhile.
    pub(super) fn with<T>(
        &self,
        work: impl Fn(&Arc<Gpu>) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut gpu = self.current();
        let mut result = work(&gpu);
        if result.is_err() && gpu.is_broken() {
            gpu = self.reopened(&gpu)?;
            result = work(&gpu).map_err(|error| match error {
                // Whatever a lost device says of it.
                KernelError::DeviceFailed { device, what, .. } if gpu.is_broken() => {
                    KernelError::DeviceLost { device, what }
                }
                error => error,
            });
        }
        gpu.pipelines.save();
        result
    }

    pub(super) fn lose(&self) {
        self.current().lose();
    }

    /// The device that is open now; one opened anew if it is lost.
    pub(super) fn healthy(&self) -> Result<Arc<Gpu>, KernelError> {
        let gpu = self.current();
        if gpu.is_broken() {
            self.reopened(&gpu)
        } else {
            Ok(gpu)
        }
    }

    pub(super) fn current(&self) -> Arc<Gpu> {
        Arc::clone(&self.gpu.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A device in place of `broken`; the one that another thread has opened meanwhile, if one has.
    fn reopened(&self, broken: &Arc<Gpu>) -> Result<Arc<Gpu>, KernelError> {
        let mut current = self.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, broken) {
            return Ok(Arc::clone(&current));
        }
        let same = |info: &DeviceInfo| info.name == self.info.name && info.backend == self.info.backend;
        let (info, adapter) = gpu::adapters(&self.options)
            .into_iter()
            .find(|(info, _)| same(info))
            .ok_or_else(|| KernelError::DeviceOpen {
                adapter: self.info.name.clone(),
                reason: "it was lost and is not there any more".into(),
            })?;
        let bus = current.bus.clone();
        *current = Arc::new(Gpu::open(&info, &adapter, &self.options, bus)?);
        Ok(Arc::clone(&current))
    }
}
