//! The device layer: several images at once, a lost device, images above the binding limit, times.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

use wellspring_kernels::{
    Background, Border, Composite, Device, DeviceChoice, DeviceTensor, FlatField, FlatFieldMode,
    GaussianBlur, Illumination, KernelError, PercentileScale, RawImage, Recipe, Resize, ResizeFilter,
    ScaleRange, SharedDevice, Step, Tensor,
};

mod common;

use common::{Random, cpu, gpu};

fn noise(channels: usize, height: usize, width: usize, seed: u64) -> RawImage {
    let mut random = Random(seed);
    let pixels = (0..channels * height * width)
        .map(|_| (random.next() & 0xfff) as u16)
        .collect();
    RawImage::new(channels, height, width, pixels, 4095).unwrap()
}

fn steps(channels: usize, height: usize, width: usize) -> Vec<Step> {
    let values = (0..channels * height * width)
        .map(|i| 1.0 + (i % 97) as f32 / 80.0)
        .collect();
    vec![
        FlatField {
            black_level: (0..channels).map(|c| c as f32).collect(),
            illumination: Some(Illumination::new(channels, height, width, values).unwrap()),
            mode: FlatFieldMode::Divide,
        }
        .into(),
        Background::Percentile { q: 1.0 }.into(),
        PercentileScale {
            range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
            scale: 255.0,
            round: false,
        }
        .into(),
        Resize {
            height: 31,
            width: 29,
            filter: ResizeFilter::Area,
        }
        .into(),
    ]
}

#[test]
fn many_images_in_a_ring_are_those_one_by_one() {
    let images: Vec<RawImage> = (0..8).map(|seed| noise(3, 70, 83, seed)).collect();
    let recipe = Recipe::new(steps(3, 70, 83), images[0].shape()).unwrap();
    let borrowed: Vec<&RawImage> = images.iter().collect();
    for device in [cpu(), gpu()] {
        let together = device.run_all(&recipe, &borrowed).unwrap();
        let apart: Vec<Tensor> = images
            .iter()
            .map(|image| device.run(&recipe, image).unwrap())
            .collect();
        assert_eq!(together, apart);
        assert!(device.run_all(&recipe, &[]).unwrap().is_empty());
        // One image of another shape stops all before any runs.
        let odd = noise(3, 70, 84, 1);
        let message = device
            .run_all(&recipe, &[&images[0], &odd])
            .unwrap_err()
            .to_string();
        assert!(message.contains("70 x 84"), "{message}");
    }
}

#[test]
fn a_lost_device_is_opened_again_and_its_work_repeated() {
    let device = Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| panic!("{e}"));
    let image = noise(2, 60, 50, 3);
    let recipe = Recipe::new(steps(2, 60, 50), image.shape()).unwrap();
    let before = device.run(&recipe, &image).unwrap();
    for _ in 0..2 {
        device.lose();
        assert_eq!(device.run(&recipe, &image).unwrap(), before);
    }
    device.lose();
    assert_eq!(device.quality(&image).unwrap().len(), 2);
    device.lose();
    // Threads that lose the same device open one anew together.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(device.run(&recipe, &image).unwrap(), before));
        }
    });
}

/// The values of a tensor that stayed on the device.
fn fetched(shared: &SharedDevice, tensor: &DeviceTensor) -> Vec<f32> {
    let bytes = tensor.shape().iter().product::<usize>() as u64 * 4;
    let readback = shared.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = shared.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(tensor.buffer(), 0, &readback, 0, bytes);
    shared.queue.submit([encoder.finish()]);
    readback.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    shared
        .device
        .poll(wgpu::PollType::Wait {
            submission_index: None,
            timeout: None,
        })
        .unwrap();
    let mapped = readback.get_mapped_range(..).unwrap();
    bytemuck::pod_collect_to_vec(&mapped[..])
}

#[test]
fn loaded_pixels_cross_the_bus_once_and_kept_tiles_not_at_all() {
    let device = Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| panic!("{e}"));
    // An odd number of pixels: the last word is half full.
    let image = noise(3, 71, 83, 5);
    let recipe = Recipe::new(steps(3, 71, 83), image.shape()).unwrap();
    let (expected, quality) = (
        device.run(&recipe, &image).unwrap(),
        device.quality(&image).unwrap(),
    );
    let pixels = image.pixels().len() as u64 * 2;
    for lost in [false, true] {
        let before = device.bus().unwrap();
        let loaded = device.load(&image).unwrap().unwrap();
        if lost {
            device.lose();
        }
        let kept = device.run_kept(&recipe, &image, Some(&loaded)).unwrap().unwrap();
        let between = device.bus().unwrap();
        assert_eq!(between.down, before.down);
        // What was lost goes up again, each time it is wanted.
        let ups = if lost { 2 } else { 1 };
        assert_eq!(between.up - before.up, ups * pixels);
        assert_eq!(
            device.run_loaded(&recipe, &image, Some(&loaded)).unwrap(),
            expected
        );
        let after = device.bus().unwrap();
        assert_eq!(after.down - between.down, expected.data().len() as u64 * 4);
        assert_eq!(device.quality_loaded(&image, Some(&loaded)).unwrap(), quality);
        let ups = if lost { 4 } else { 1 };
        assert_eq!(device.bus().unwrap().up - before.up, ups * pixels);

        let shared = device.share().unwrap().unwrap();
        assert!(!shared.is_lost() && !kept.is_lost());
        assert_eq!(kept.shape(), expected.shape());
        assert_eq!(fetched(&shared, &kept), expected.data());
        // The next image does not write over what is kept.
        let other = noise(3, 71, 83, 6);
        let next = device.run_kept(&recipe, &other, None).unwrap().unwrap();
        assert_eq!(fetched(&shared, &kept), expected.data());
        assert_ne!(fetched(&shared, &next), expected.data());
        device.lose();
        assert!(kept.is_lost() && shared.is_lost());
        assert!(!device.share().unwrap().unwrap().is_lost());
    }
    // On the processor there is nothing to bring anywhere.
    assert!(cpu().load(&image).unwrap().is_none() && cpu().bus().is_none());
    assert!(cpu().run_kept(&recipe, &image, None).unwrap().is_none() && cpu().share().unwrap().is_none());
    let found = cpu().run_loaded(&recipe, &image, None).unwrap();
    assert_eq!(found, cpu().run(&recipe, &image).unwrap());
}

/// Planes that fit one by one are run one by one, with the parameters of their own channel.
#[test]
fn an_image_above_the_binding_limit_is_run_channel_by_channel() {
    let limit = gpu().info().max_binding_bytes.unwrap();
    let side = ((limit / 4) as usize).isqrt() - 1;
    if side > 6000 {
        println!("skipped: this adapter binds {limit} bytes, too much to exceed in a test");
        return;
    }
    let (height, width) = (side, side);
    let pixels = (0..2 * height * width).map(|i| (i % 4099) as u16).collect();
    let image = RawImage::new(2, height, width, pixels, 65535).unwrap();
    let mut steps: Vec<Step> = vec![
        FlatField {
            black_level: vec![10.0, 20.0],
            illumination: None,
            mode: FlatFieldMode::Divide,
        }
        .into(),
        PercentileScale {
            range: ScaleRange::Given {
                lo: vec![5.0, 9.0],
                hi: vec![3000.0, 4000.0],
            },
            scale: 255.0,
            round: false,
        }
        .into(),
    ];
    // Stored whole, so that both planes do not fit.
    steps.push(
        GaussianBlur {
            sigma: 0.3,
            border: Border::Reflect,
        }
        .into(),
    );
    steps.push(
        Resize {
            height: 40,
            width: 50,
            filter: ResizeFilter::Area,
        }
        .into(),
    );
    let recipe = Recipe::new(steps.clone(), image.shape()).unwrap();
    let expected = cpu().run(&recipe, &image).unwrap();
    let found = gpu().run(&recipe, &image).unwrap();
    let gap = expected
        .data()
        .iter()
        .zip(found.data())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(gap < 255.0 * 1e-5, "{gap}");
    // A step that needs both channels cannot be told apart: an error before any dispatch.
    steps.insert(
        3,
        Composite {
            colours: vec![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        }
        .into(),
    );
    let recipe = Recipe::new(steps, image.shape()).unwrap();
    let error = gpu().run(&recipe, &image).unwrap_err();
    assert!(matches!(error, KernelError::TooLarge { .. }), "{error}");
}

#[test]
fn times_belong_to_the_dispatches_of_the_plan() {
    let image = noise(2, 60, 50, 3);
    let recipe = Recipe::new(steps(2, 60, 50), image.shape()).unwrap();
    let (tensor, times) = gpu().run_timed(&recipe, &image).unwrap();
    assert_eq!(tensor, gpu().run(&recipe, &image).unwrap());
    match times {
        Some(times) => {
            let traffic: Vec<_> = times.iter().map(|t| t.traffic).collect();
            assert_eq!(traffic, recipe.traffic());
            assert!(times.iter().any(|t| !t.time.is_zero()));
        }
        None => println!("skipped: this adapter has no clock"),
    }
    let (tensor, times) = cpu().run_timed(&recipe, &image).unwrap();
    assert_eq!(tensor, cpu().run(&recipe, &image).unwrap());
    assert!(times.is_none());
}

#[test]
fn the_same_bytes_come_out_every_time() {
    let image = noise(4, 90, 131, 8);
    let recipe = Recipe::new(steps(4, 90, 131), image.shape()).unwrap();
    let first = gpu().run(&recipe, &image).unwrap();
    for _ in 0..5 {
        assert_eq!(gpu().run(&recipe, &image).unwrap(), first);
    }
}

#[test]
fn adapters_are_chosen_by_kind_and_number() {
    let kind = gpu().info().kind;
    let by_kind = Device::open(DeviceChoice::Kind(kind)).unwrap();
    assert_eq!(by_kind.info(), gpu().info());
    let devices = wellspring_kernels::list_devices();
    for (index, info) in devices.iter().enumerate().filter(|(_, info)| info.kind == kind) {
        let device = Device::open(format!("#{index}").parse().unwrap()).unwrap();
        assert_eq!(device.info().name, info.name);
    }
    let message = Device::open(DeviceChoice::Index(99)).unwrap_err().to_string();
    assert!(message.contains("#99"), "{message}");
}
