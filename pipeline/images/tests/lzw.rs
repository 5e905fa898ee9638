//! LZW: strings of every length, and codes that no encoder writes.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::writer::Writer;
use wellspring_images::{Limits, decode};

#[test]
fn strings_of_every_length_come_back_from_lzw() {
    for length in (1..300).chain([4000, 70_000, 300_000]) {
        for period in [1, 2, 3, 7, 8, 9, 16, 17, 300] {
            let row: Vec<u32> = (0..length).map(|i| (i % period % 256) as u32).collect();
            let kind = Writer {
                bits: 8,
                compression: 5,
                ..Writer::default()
            };
            let plane = decode(&kind.file(&[(length, 1, row.clone())]), 0, &Limits::default()).unwrap();
            assert!(
                plane.pixels.iter().map(|v| u32::from(*v)).eq(row),
                "{length} {period}"
            );
        }
    }
}

/// Codes of LZW chosen at random among those that have a meaning, and the bytes they mean by the letter of the
/// specification: full tables that are not cleared and codes that mean themselves come up, which encoders avoid.
fn random_lzw(seed: u64, clears: u64, wanted: usize) -> (Vec<u8>, Vec<u8>) {
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let fresh = || -> Vec<Vec<u8>> { (0..258).map(|code| vec![code as u8]).collect() };
    let (mut table, mut before): (Vec<Vec<u8>>, Option<Vec<u8>>) = (fresh(), None);
    let (mut bits, mut expected) = (Vec::new(), Vec::new());
    let mut width = 9;
    while expected.len() < wanted {
        let code = match &before {
            _ if random(1000) < clears => 256,
            None => random(256) as usize,
            // The newest codes half of the time, that of the string before and its first byte among them.
            Some(_) if random(2) == 0 => table.len().saturating_sub(random(8) as usize).min(4095),
            Some(_) => random(table.len() as u64) as usize,
        };
        if code == 257 {
            continue;
        }
        bits.extend((0..width).rev().map(|bit| code >> bit & 1 == 1));
        if code == 256 {
            (table, before, width) = (fresh(), None, 9);
            continue;
        }
        let first = |string: &Vec<u8>| string.first().copied().unwrap_or(0);
        if let Some(before) = &before
            && table.len() < 4096
        {
            let next = table.get(code).map_or_else(|| first(before), first);
            table.push(before.iter().copied().chain([next]).collect());
        }
        expected.extend(&table[code]);
        before = Some(table[code].clone());
        width = [511, 1023, 2047]
            .iter()
            .filter(|grow| table.len() >= **grow)
            .count()
            + 9;
    }
    let bytes = bits.chunks(8).map(|bits| {
        bits.iter()
            .enumerate()
            .map(|(at, bit)| u8::from(*bit) << (7 - at))
            .sum()
    });
    (bytes.collect(), expected)
}

#[test]
fn any_lzw_codes_mean_what_the_specification_says() {
    for seed in 1..17 {
        let (codes, expected) = random_lzw(seed * 7_919, [0, 1, 20, 300][seed as usize % 4], 30_000);
        // Reversed bits are told from the start of a strip.
        if codes[0] == 0 && codes[1] & 1 == 1 {
            continue;
        }
        let width = 20_000 + seed as usize;
        let kind = Writer {
            bits: 8,
            ..Writer::default()
        };
        // Not compressed, the codes are as long as the pixels; the directory then says LZW.
        let stored = codes.len().max(width);
        let mut padded = codes.clone();
        padded.resize(stored, 0);
        let mut file = kind.file(&[(stored, 1, padded.iter().map(|byte| u32::from(*byte)).collect())]);
        set_value(&mut file, 259, 5);
        set_value(&mut file, 256, width as u32);
        let plane = decode(&file, 0, &Limits::default()).unwrap_or_else(|error| panic!("{seed}: {error:?}"));
        assert!(
            plane
                .pixels
                .iter()
                .map(|level| *level as u8)
                .eq(expected.into_iter().take(width)),
            "{seed}"
        );
    }
}

/// Changes a number of the first page of a little-endian file.
fn set_value(file: &mut [u8], tag: u16, value: u32) {
    let directory = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let at = (0..20)
        .map(|entry| directory + 2 + 12 * entry)
        .find(|at| file[*at..*at + 2] == tag.to_le_bytes())
        .unwrap();
    let width = if file[at + 2] == 4 { 4 } else { 2 };
    file[at + 8..at + 8 + width].copy_from_slice(&value.to_le_bytes()[..width]);
}
