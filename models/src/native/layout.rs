//! Where the values of a feature map lie: channels last, with an optional border of zeros around the image.
//!
//! The border lets a convolution read past the edge without a test: the layer that writes a map leaves room for
//! the padding of the layer that reads it.

/// Pixels of zeros around a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Border {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

impl Border {
    /// The smallest border that contains both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

/// TensorFlow's `SAME` padding along one side: the pixels before and after, and the output length `ceil(n / stride)`.
/// The odd pixel lies after the image.
pub(crate) fn same_padding(n: usize, kernel: usize, stride: usize) -> (usize, usize, usize) {
    let out = n.div_ceil(stride);
    let total = ((out.max(1) - 1) * stride + kernel).saturating_sub(n);
    (total / 2, total - total / 2, out)
}

/// A feature map: `height` x `width` pixels of `channels` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) border: Border,
}

impl Map {
    /// A map without border.
    pub(crate) fn new(height: usize, width: usize, channels: usize) -> Self {
        Self {
            height,
            width,
            channels,
            border: Border::default(),
        }
    }

    /// Values from the start of one row to the next.
    pub(crate) fn row_stride(&self) -> usize {
        (self.border.left + self.width + self.border.right) * self.channels
    }

    /// Values in the whole map, border included.
    pub(crate) fn len(&self) -> usize {
        (self.border.top + self.height + self.border.bottom) * self.row_stride()
    }

    /// Pixels of the image.
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Where pixel `(y, x)` begins.
    pub(crate) fn offset(&self, y: usize, x: usize) -> usize {
        (self.border.top + y) * self.row_stride() + (self.border.left + x) * self.channels
    }

    /// Walks the pixels in row order from pixel number `start`.
    pub(crate) fn walk(&self, start: usize) -> Walk {
        let (y, x) = (start / self.width, start % self.width);
        Walk {
            offset: self.offset(y, x),
            x,
            width: self.width,
            channels: self.channels,
            skip: (self.border.left + self.border.right) * self.channels,
        }
    }

    /// Sets the border to zero.
    pub(crate) fn clear_border(&self, data: &mut [f32]) {
        let stride = self.row_stride();
        let (left, right) = (
            self.border.left * self.channels,
            self.border.right * self.channels,
        );
        let bottom = self.border.top + self.height;
        data[..self.border.top * stride].fill(0.0);
        data[bottom * stride..self.len()].fill(0.0);
        if left + right > 0 {
            for row in data[self.border.top * stride..bottom * stride].chunks_exact_mut(stride) {
                row[..left].fill(0.0);
                row[stride - right..].fill(0.0);
            }
        }
    }
}

/// The offsets of successive pixels, without a division for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    offset: usize,
    x: usize,
    width: usize,
    channels: usize,
    skip: usize,
}

impl Walk {
    /// The offset of this pixel; moves on to the next.
    #[inline]
    pub(crate) fn step(&mut self) -> usize {
        let here = self.offset;
        self.offset += self.channels;
        self.x += 1;
        if self.x == self.width {
            self.x = 0;
            self.offset += self.skip;
        }
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_pixel_after() {
        assert_eq!(same_padding(224, 3, 2), (0, 1, 112));
        assert_eq!(same_padding(56, 5, 2), (1, 2, 28));
        assert_eq!(same_padding(28, 3, 1), (1, 1, 28));
        assert_eq!(same_padding(7, 5, 2), (2, 2, 4));
        assert_eq!(same_padding(1, 1, 1), (0, 0, 1));
        assert_eq!(same_padding(3, 1, 2), (0, 0, 2));
    }

    #[test]
    fn a_walk_visits_every_pixel_and_spares_the_border() {
        let map = Map {
            height: 3,
            width: 4,
            channels: 2,
            border: Border {
                top: 1,
                left: 2,
                bottom: 0,
                right: 1,
            },
        };
        let mut data = vec![7.0; map.len()];
        map.clear_border(&mut data);
        assert_eq!(data.iter().filter(|&&v| v == 7.0).count(), 3 * 4 * 2);
        let mut walk = map.walk(5);
        for m in 5..12 {
            let at = walk.step();
            assert_eq!(at, map.offset(m / 4, m % 4));
            assert_eq!(data[at..at + 2], [7.0, 7.0]);
        }
    }
}
